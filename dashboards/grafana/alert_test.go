package grafana

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/grafana/grafana-plugin-sdk-go/data"
)

func TestAnAlertSeesOneNumberARow(t *testing.T) {
	score := []*float64{new(float64), nil}
	*score[0] = 4.5
	f := table(data.NewFrame("evaluation", data.NewField("key", nil, []string{"water", "roads"}), data.NewField("cases", nil, []int64{3, 7}),
		data.NewField("score", nil, score), data.NewField("grade", nil, []string{"A", ""})))
	got := forAlert(f)[0]
	want := data.NewFrame("evaluation", data.NewField("key", nil, []string{"water", "water", "roads"}),
		data.NewField("column", nil, []string{"cases", "score", "cases"}), data.NewField("value", nil, []float64{3, 4.5, 7}))
	want.Meta = f[0].Meta
	if d := cmp.Diff(want, got, data.FrameTestCompareOptions()...); d != "" {
		t.Errorf("- want + got\n%s", d)
	}
}

func TestAnAlertSeesNoUnknownPoints(t *testing.T) {
	l := lineOf(1, 1, -1, 3)
	f := data.NewFrame("p1", data.NewField("time", nil, l.times), data.NewField("pressure", nil, l.values))
	f.Meta = &data.FrameMeta{Type: data.FrameTypeTimeSeriesMulti}
	if got := forAlert(data.Frames{f})[0]; got.Rows() != 2 || *got.Fields[1].At(1).(*float64) != 3 {
		t.Errorf("got %d rows", got.Rows())
	}
}
