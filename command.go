package citywarden

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ModelCommand declares something that a model's devices can be told to do.
type ModelCommand struct {
	Name    string   `json:"name"`
	Title   Text     `json:"title"`
	Params  []Param  `json:"params,omitempty"`
	OneWay  bool     `json:"one_way,omitempty"` // the device does not answer
	Expires Duration `json:"expires,omitempty"` // how long it is of use, unless who sends it says otherwise; 0 means 10 minutes
	IPSO    string   `json:"ipso,omitempty"`    // resource of LwM2M that is executed, or written with its one parameter, see SplitIPSO; "" for none
}

// Param declares one parameter of a ModelCommand.
type Param struct {
	Name     string   `json:"name"`
	Title    Text     `json:"title"`
	Kind     Kind     `json:"kind"`
	Unit     string   `json:"unit,omitempty"` // UCUM
	Min      *float64 `json:"min,omitempty"`
	Max      *float64 `json:"max,omitempty"`
	Optional bool     `json:"optional,omitempty"`
}

// Command returns the declaration of name.
func (m *Model) Command(name string) (*ModelCommand, bool) {
	for i := range m.Commands {
		if m.Commands[i].Name == name {
			return &m.Commands[i], true
		}
	}
	return nil, false
}

// CommandState says how far a Command has come.
type CommandState string

// The states of a command.
const (
	CommandQueued    CommandState = "queued"    // the device is not there
	CommandSent      CommandState = "sent"      // on its way
	CommandDelivered CommandState = "delivered" // the device has it; the end of one that has no answer
	CommandAnswered  CommandState = "answered"  // the end of one that has
	CommandTimedOut  CommandState = "timed_out" // it expired before
	CommandFailed    CommandState = "failed"    // it can't come to the device at all, see Command.Reason
)

// Command is something that a device is told to do.
type Command struct {
	ID        int64           `json:"id"`
	Device    DeviceID        `json:"device"`
	Method    string          `json:"method"` // a ModelCommand of the device's model
	Params    json.RawMessage `json:"params"` // an object
	OneWay    bool            `json:"one_way,omitempty"`
	State     CommandState    `json:"state"`
	Answer    json.RawMessage `json:"answer,omitempty"` // what the device said
	Reason    string          `json:"reason,omitempty"` // why it failed
	By        string          `json:"by"`
	Created   time.Time       `json:"created"`
	Expires   time.Time       `json:"expires"`
	Sent      time.Time       `json:"sent,omitzero"` // the last time
	Delivered time.Time       `json:"delivered,omitzero"`
	Answered  time.Time       `json:"answered,omitzero"`
}

// Open reports whether something can still become of c.
func (c *Command) Open() bool {
	switch c.State {
	case CommandAnswered, CommandTimedOut, CommandFailed:
		return false
	case CommandDelivered:
		return !c.OneWay
	}
	return true
}

// CommandFilter selects commands; zero fields select all.
type CommandFilter struct {
	Device DeviceID
	Open   bool // only those that are open
	Page
}

// Check returns a CodeInvalid error unless params, a JSON object, are what the
// declaration says.
func (c *ModelCommand) Check(params map[string]any) error {
	names := make([]string, len(c.Params))
	for i, p := range c.Params {
		names[i] = p.Name
	}
	if err := c.unknown(params, names); err != nil {
		return err
	}
	for _, p := range c.Params {
		x, given := params[p.Name]
		if !given {
			if !p.Optional {
				return Errorf(CodeInvalid, "command %s needs the parameter %s, a %s", c.Name, p.Name, p.Kind)
			}
			continue
		}
		v, ok := ValueOf(x)
		if !ok || v.Kind() != p.Kind {
			return Errorf(CodeInvalid, "parameter %s of command %s is a %s, not %v", p.Name, c.Name, p.Kind, x)
		}
		if p.Min != nil && v.Float() < *p.Min || p.Max != nil && v.Float() > *p.Max {
			return Errorf(CodeInvalid, "parameter %s of command %s is %s; it is %s", p.Name, c.Name, v, between(p.Min, p.Max))
		}
	}
	return nil
}

// unknown returns an error when one of params is none of those called names.
func (c *ModelCommand) unknown(params map[string]any, names []string) error {
	for name := range params {
		if slices.Contains(names, name) {
			continue
		}
		if hint := DidYouMean(name, names); hint != "" {
			return Errorf(CodeInvalid, "command %s has no parameter %q%s", c.Name, name, hint)
		}
		if len(names) == 0 {
			return Errorf(CodeInvalid, "command %s has no parameters", c.Name)
		}
		return Errorf(CodeInvalid, "command %s has no parameter %q; it has %s", c.Name, name, strings.Join(names, ", "))
	}
	return nil
}

func between(least, most *float64) string {
	switch {
	case least == nil:
		return fmt.Sprintf("at most %g", *most)
	case most == nil:
		return fmt.Sprintf("at least %g", *least)
	}
	return fmt.Sprintf("%g to %g", *least, *most)
}
