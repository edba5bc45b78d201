package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/citywarden/citywarden"
)

// json reads a payload that is JSON. Members that no field names are for
// somebody else; a payload with none of the fields is not one of this codec.
func (r *run) json() error {
	d := json.NewDecoder(bytes.NewReader(r.in.Bytes))
	var x any
	if err := d.Decode(&x); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return fmt.Errorf("byte %d: %w", max(syntax.Offset-1, 0), err)
		}
		return fmt.Errorf("byte %d: not JSON: %w", len(r.in.Bytes), err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("byte %d: something follows the JSON", d.InputOffset())
	}
	if err := r.members(r.codec.fields, x); err != nil {
		return err
	}
	if len(r.out.Readings)+len(r.out.Attrs)+len(r.out.Rejected) == 0 {
		return errors.New("byte 0: the JSON has nothing of what the codec reads")
	}
	return nil
}

func (r *run) members(list []field, x any) error {
	for i := range list {
		if err := r.member(&list[i], x); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) member(f *field, x any) error {
	if err := r.step(); err != nil {
		return err
	}
	here, err := f.when.holds(r.env)
	if err != nil {
		return fmt.Errorf("%s: when: %w", f.where(0), err)
	}
	if !here {
		return nil
	}
	if f.computed() {
		return r.set(f, nil, 0)
	}
	found, ok := x, true
	for _, key := range strings.Split(f.Key, ".") {
		if f.Key == "" {
			break
		}
		var object map[string]any
		if object, ok = found.(map[string]any); ok {
			found, ok = object[key]
		}
		if !ok || found == nil {
			return nil
		}
	}
	if len(f.fields) > 0 {
		if f.Repeat == "" {
			return r.members(f.fields, found)
		}
		array, ok := found.([]any)
		if !ok {
			return r.refuse(f, "%s is no array", f.Key)
		}
		index := r.env["index"]
		for i, e := range array {
			r.env["index"] = float64(i)
			r.forget(f.fields)
			if err := r.members(f.fields, e); err != nil {
				return err
			}
		}
		r.env["index"] = index
		return nil
	}
	v, err := plain(f, found)
	if err != nil {
		return r.refuse(f, "%s %v", f.Key, err)
	}
	return r.set(f, v, 0)
}

// plain returns x as what the field's type says. Numbers may come in quotes, and
// switches as numbers: codecs are for payloads that are not ours to choose.
func plain(f *field, x any) (any, error) {
	switch kinds[f.Type] {
	case citywarden.KindNumber:
		switch x := x.(type) {
		case float64:
			return x, nil
		case bool:
			if x {
				return 1.0, nil
			}
			return 0.0, nil
		case string:
			if n, err := strconv.ParseFloat(strings.TrimSpace(x), 64); err == nil && n == n && n-n == 0 {
				return n, nil
			}
			return nil, fmt.Errorf("is %.40q, and no number", x)
		}
	case citywarden.KindBool:
		switch x := x.(type) {
		case bool:
			return x, nil
		case float64:
			return x != 0, nil
		case string:
			if b, err := strconv.ParseBool(x); err == nil {
				return b, nil
			}
			return nil, fmt.Errorf("is %.40q, which is neither true nor false", x)
		}
	default:
		switch x := x.(type) {
		case string:
			if len(x) > maxText {
				return nil, fmt.Errorf("has %d bytes; a text has at most %d", len(x), maxText)
			}
			return x, nil
		case float64:
			return strconv.FormatFloat(x, 'f', -1, 64), nil
		}
	}
	return nil, fmt.Errorf("can't be read as %s", f.Type)
}
