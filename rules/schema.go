package rules

import (
	"bytes"
	"encoding/json"
	"maps"
)

// JSONSchema returns the JSON Schema (draft 2020-12) of rule files, for editors.
// It knows the keys and the forms of values; what conditions may say, only Load
// knows.
func JSONSchema() []byte {
	root := fileShape.schema()
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "citywarden rule file"
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		panic(err) // the table can't be written as JSON
	}
	return b.Bytes()
}

// schema returns s as JSON Schema.
func (s shape) schema() map[string]any {
	switch {
	case s.item != nil:
		item := s.item.schema()
		many := map[string]any{"type": "array", "items": item}
		if s.most > 0 {
			many["maxItems"] = s.most
		}
		if s.single {
			return map[string]any{"anyOf": []any{item, many}}
		}
		return many
	case s.free != nil:
		return map[string]any{"type": "object", "additionalProperties": s.free.schema()}
	case len(s.keys) == 0:
		return maps.Clone(s.scalar)
	}
	props, need := map[string]any{}, []string{}
	for _, k := range s.keys {
		p := k.val.schema()
		p["description"] = k.help
		props[k.name] = p
		if k.need {
			need = append(need, k.name)
			if k.val.item != nil { // and has something
				p["minItems"] = 1
			}
		}
	}
	out := map[string]any{"type": "object", "properties": props, "additionalProperties": false}
	if len(need) > 0 {
		out["required"] = need
	}
	if s.scalar != nil { // a text, or with keys
		return map[string]any{"anyOf": []any{maps.Clone(s.scalar), out}}
	}
	return out
}
