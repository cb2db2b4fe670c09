// Package whole holds the tests of the whole program: the real binary on a real
// directory, killed, drained and misused as it will be in life. Everything here
// waits for a process and so for real time, always with a deadline.
package whole
