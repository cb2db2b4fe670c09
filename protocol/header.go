package protocol

// Check returns nil if the header may stand on a message as it is.
func (h Header) Check() *Error { return checkHeader(h) }
