import { Backoff } from "./backoff.js";
import { refusal } from "./errors.js";
import { Lasting, onAbort } from "./events.js";
/** What a session restores: a subscription, or the membership in a consumer. */
export class Member extends Lasting {
    /** Number in the running session, 0 for none. A number is never used again. */
    sub = 0;
    /** Counts refusals and holes in a row. */
    pause = new Backoff();
    state = "asking";
    constructor(link, title, signal) {
        super();
        this.link = link;
        this.title = title;
        onAbort(signal, this.done, () => this.close());
    }
    enter(state) {
        if (this.state === "ended" || this.state === state)
            return;
        this.state = state;
        this.emit("state", state);
    }
    /** The broker has confirmed it. */
    confirmed(state) {
        this.enter(state);
        this.begun();
    }
    /** The session has ended. */
    lost() {
        this.sub = 0;
        this.enter("asking");
    }
    gap(f) {
        if (!this.emit("gap", f))
            this.link.warn(`${this.title} has a gap; listen to "gap" to be told:`, f);
    }
    /** The broker has refused it, or ended it. */
    error(f) {
        this.lost();
        if (f.retryable || f.code === "unknown_subscription")
            this.link.rest(this, f.retryAfterMs);
        else
            this.end(refusal(f));
    }
    /** Ends it, with an error or because it was closed. */
    end(error) {
        if (this.state === "ended")
            return;
        this.link.forget(this);
        this.enter("ended");
        this.over(this.title, error);
        if (error)
            this.link.warn(`${this.title} has ended:`, error);
    }
}
