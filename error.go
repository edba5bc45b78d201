package citywarden

import (
	"errors"
	"fmt"
)

// Code classifies an error for people and protocols: the HTTP API maps it to a
// status, the broker to an MQTT reason code, the command line to an exit code.
type Code string

// The codes. An error without one counts as CodeInternal.
const (
	CodeInvalid         Code = "invalid"         // the caller sent something malformed
	CodeUnauthenticated Code = "unauthenticated" // nobody knows who the caller is
	CodeDenied          Code = "denied"          // the caller may not do this
	CodeNotFound        Code = "not_found"       // the named thing does not exist
	CodeConflict        Code = "conflict"        // the thing is not in a state that allows it
	CodeTransient       Code = "transient"       // the same call may succeed later
	CodeLimited         Code = "limited"         // too many; a LimitError in it says when to come again
	CodeTooLarge        Code = "too_large"       // more at once than is taken
	CodeInternal        Code = "internal"        // a bug or a broken dependency
)

// Error is an error with a Code.
type Error struct {
	Code Code
	err  error
}

// Error returns the message, which says what was wrong, where, and what to do.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// Errorf is fmt.Errorf with a Code; %w works as usual.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, err: fmt.Errorf(format, args...)}
}

// CodeOf reports the code of err: "" for nil, CodeInternal when none was given.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
