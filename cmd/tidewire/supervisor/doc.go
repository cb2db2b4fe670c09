// Package supervisor starts a broker again when it dies, for development: the
// demo kills the broker and shows what becomes of its clients.
//
// The program runs itself once more, as a child with the same arguments and
// --supervised. Two pipes connect them:
//
//   - The lifeline goes to the child. A byte on it asks the child to end, a second
//     one to end at once. Its end, which the system closes however the supervisor
//     dies, ends the child too, so that no broker is left behind that holds ports
//     and data.
//   - Reports come from the child, as lines of JSON: where it listens, once it
//     takes requests, and how many listen to the topic of the demo.
//
// Why pipes and not signals: Ctrl-C in a terminal goes to both processes, and a
// second signal, handed on, would mean "at once" to the child. Why not prctl(PR_SET_PDEATHSIG): only
// Linux has it, and there it follows the thread that started the child and not
// the process.
package supervisor
