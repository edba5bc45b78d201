package citywarden

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Kind is the type of a Value.
type Kind uint8

// The kinds. The zero Kind is invalid.
const (
	KindNumber Kind = iota + 1
	KindBool
	KindText
)

var kindNames = [...]string{KindNumber: "number", KindBool: "bool", KindText: "text"}

func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return "invalid"
	}
	return kindNames[k]
}

// ParseKind returns the kind named s: "number", "bool" or "text".
func ParseKind(s string) (Kind, error) {
	for k := KindNumber; k <= KindText; k++ {
		if kindNames[k] == s {
			return k, nil
		}
	}
	return 0, Errorf(CodeInvalid, "unknown kind %q; it is number, bool or text", s)
}

// MarshalJSON writes the name of the kind.
func (k Kind) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (k *Kind) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := ParseKind(s)
	if err == nil {
		*k = v
	}
	return err
}

// Value is a number, a bool or a text. The zero Value is invalid.
type Value struct {
	kind Kind
	num  float64
	text string
}

// Number returns a Value of KindNumber.
func Number(f float64) Value { return Value{kind: KindNumber, num: f} }

// TextValue returns a Value of KindText.
func TextValue(s string) Value { return Value{kind: KindText, text: s} }

// Bool returns a Value of KindBool.
func Bool(b bool) Value {
	v := Value{kind: KindBool}
	if b {
		v.num = 1
	}
	return v
}

// ValueOf returns x (a bool, string, float64 or int) as a Value; ok is false
// for every other type.
func ValueOf(x any) (v Value, ok bool) {
	switch x := x.(type) {
	case bool:
		return Bool(x), true
	case string:
		return TextValue(x), true
	case float64:
		return Number(x), true
	case int:
		return Number(float64(x)), true
	case int64:
		return Number(float64(x)), true
	case uint64:
		return Number(float64(x)), true
	}
	return Value{}, false
}

// Kind reports the type of v, 0 if v is invalid.
func (v Value) Kind() Kind { return v.kind }

// Float returns the number, or 1 and 0 for true and false; 0 for a text.
func (v Value) Float() float64 { return v.num }

// IsTrue reports whether v is the bool true.
func (v Value) IsTrue() bool { return v.kind == KindBool && v.num != 0 }

// Any returns the value as float64, bool or string; nil if v is invalid.
func (v Value) Any() any {
	switch v.kind {
	case KindNumber:
		return v.num
	case KindBool:
		return v.num != 0
	case KindText:
		return v.text
	}
	return nil
}

func (v Value) String() string {
	switch v.kind {
	case KindNumber:
		return strconv.FormatFloat(v.num, 'g', -1, 64)
	case KindBool:
		return strconv.FormatBool(v.num != 0)
	case KindText:
		return v.text
	}
	return "<invalid>"
}

// MarshalJSON writes the bare number, bool or string; null if v is invalid.
func (v Value) MarshalJSON() ([]byte, error) { return json.Marshal(v.Any()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (v *Value) UnmarshalJSON(b []byte) error {
	var x any
	if err := json.Unmarshal(b, &x); err != nil {
		return err
	}
	if x == nil {
		*v = Value{}
		return nil
	}
	got, ok := ValueOf(x)
	if !ok {
		return fmt.Errorf("a value is a number, a bool or a string, not %s", b)
	}
	*v = got
	return nil
}
