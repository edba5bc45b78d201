package grafana

import (
	"github.com/grafana/grafana-plugin-sdk-go/data"
)

// forAlert returns what an alert of Grafana is to judge. It knows rows apart by
// their texts alone, so that each has one number, with the name of its column as a
// text; and one unknown point would make a minimum or mean no number, and the alert
// silent, so there is none.
func forAlert(frames data.Frames) data.Frames {
	out := make(data.Frames, len(frames))
	for i, f := range frames {
		switch {
		case f.Meta == nil:
			out[i] = f
		case f.Meta.Type == data.FrameTypeNumericLong:
			out[i] = oneNumber(f)
		default:
			out[i] = known(f)
		}
	}
	return out
}

// oneNumber returns a row for each number of f that is known. What it is of stands
// in the texts before the first number; those after it are judgements.
func oneNumber(f *data.Frame) *data.Frame {
	var of, numbers []*data.Field
	for _, x := range f.Fields {
		switch {
		case x.Type().Numeric():
			numbers = append(numbers, x)
		case len(numbers) == 0:
			of = append(of, x)
		}
	}
	texts, columns, values := make([][]string, len(of)), []string{}, []float64{}
	for row := range f.Rows() {
		for _, x := range numbers {
			v, err := x.NullableFloatAt(row)
			if err != nil || v == nil {
				continue
			}
			for k := range of {
				texts[k] = append(texts[k], of[k].At(row).(string))
			}
			columns, values = append(columns, x.Name), append(values, *v)
		}
	}
	out := data.NewFrame(f.Name)
	for k := range of {
		out.Fields = append(out.Fields, data.NewField(of[k].Name, nil, texts[k]))
	}
	out.Fields = append(out.Fields, data.NewField("column", nil, columns), data.NewField("value", nil, values))
	out.Meta = f.Meta
	return out
}

// known returns f without the rows in which every number is unknown.
func known(f *data.Frame) *data.Frame {
	for row := f.Rows() - 1; row >= 0; row-- {
		numbers, unknown := 0, 0
		for _, x := range f.Fields {
			if x.Type().Numeric() {
				numbers++
				if x.NilAt(row) {
					unknown++
				}
			}
		}
		if numbers > 0 && numbers == unknown {
			f.DeleteRow(row)
		}
	}
	return f
}
