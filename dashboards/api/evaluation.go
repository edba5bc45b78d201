package api

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/xuri/excelize/v2"

	"github.com/citywarden/citywarden"
)

// Evaluations say what the work on cases was worth.
type Evaluations interface {
	Evaluate(ctx context.Context, q citywarden.EvaluationQuery) (citywarden.Evaluation, error)
	EvaluatedCases(ctx context.Context, q citywarden.EvaluationQuery, indicator, key string, part citywarden.Part, p citywarden.Page) ([]citywarden.Case, string, error)
}

// EvaluationParams say what is evaluated.
type EvaluationParams struct {
	From  string                  `query:"from" maxLength:"40" doc:"A day like 2026-11-01, from its midnight on, or RFC 3339; the first of this month when left out"`
	To    string                  `query:"to" maxLength:"40" doc:"Exclusive, like from; now when left out"`
	By    citywarden.EvaluationBy `query:"by" required:"true" enum:"area,department,post"`
	Level citywarden.Level        `query:"level" enum:"county,town,village,grid" doc:"Of the areas; towns when left out; grid needs under"`
	Under string                  `query:"under" pattern:"^[0-9]*$" maxLength:"15" doc:"Only in the area of that code, like 350623100"`
}

const xlsxType = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

func (s *server) evaluationRoutes() {
	const tag = "evaluation"
	text := &huma.MediaType{Schema: &huma.Schema{Type: "string"}}
	binary := &huma.MediaType{Schema: &huma.Schema{Type: "string", Format: "binary"}}
	handle(s, route{method: "GET", path: "/api/v1/evaluation", id: "get-evaluation", tag: tag, may: citywarden.MayEvaluate,
		responses: map[string]*huma.Response{"200": {Description: "The evaluation", Content: map[string]*huma.MediaType{
			"application/json": {Schema: s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[citywarden.Evaluation](), true, "")},
			"text/csv":         text,
			xlsxType:           binary,
		}}},
		summary: "What the work on cases was worth (GB/T 30428.4), by area, department or post; a department sees its own by department"}, s.evaluation)
	handle(s, route{method: "GET", path: "/api/v1/evaluation/cases", id: "list-evaluated-cases", tag: tag, may: citywarden.MayEvaluate,
		summary: "The cases behind a figure of an evaluation, the newest first"}, s.evaluatedCases)
}

// query returns what p asks for, as the caller may ask it.
func (s *server) query(ctx context.Context, p EvaluationParams) (citywarden.EvaluationQuery, error) {
	q := citywarden.EvaluationQuery{By: p.By, Level: p.Level, Under: p.Under}
	u := callerOf(ctx)
	q.Area = u.Area
	if u.Role == citywarden.RoleDepartment {
		if u.Department == "" {
			return q, citywarden.Errorf(citywarden.CodeDenied, "%s is in no department", u.Name)
		}
		q.Only = u.Department
	}
	now := time.Now().In(s.zone)
	q.From, q.To = time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, s.zone).UTC(), now.UTC()
	for _, x := range []struct {
		text string
		to   *time.Time
	}{{p.From, &q.From}, {p.To, &q.To}} {
		if x.text == "" {
			continue
		}
		if day, err := time.ParseInLocation(time.DateOnly, x.text, s.zone); err == nil {
			*x.to = day.UTC()
			continue
		}
		at, _, err := span(x.text, "")
		if err != nil {
			return q, citywarden.Errorf(citywarden.CodeInvalid, "%q: write a day like 2026-11-01 or a time like 2026-11-01T08:00:00+08:00", x.text)
		}
		*x.to = at
	}
	return q, nil
}

func (s *server) evaluation(ctx context.Context, in *struct {
	EvaluationParams
	Format string `query:"format" enum:"json,csv,xlsx" doc:"json when left out; the tables have a line for each row"`
	Lang   string `query:"lang" enum:"zh,en" default:"zh" doc:"Of the tables"`
}) (*struct {
	ContentType string `header:"Content-Type"`
	Disposition string `header:"Content-Disposition"`
	Body        []byte
}, error) {
	q, err := s.query(ctx, in.EvaluationParams)
	if err != nil {
		return nil, err
	}
	e, err := s.Evaluations.Evaluate(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &struct {
		ContentType string `header:"Content-Type"`
		Disposition string `header:"Content-Disposition"`
		Body        []byte
	}{ContentType: "application/json"}
	switch in.Format {
	case "csv":
		out.ContentType = "text/csv; charset=utf-8"
		out.Body, err = asCSV(evaluationTable(&e, in.Lang))
	case "xlsx":
		out.ContentType = xlsxType
		out.Body, err = asXLSX(sheet{citywarden.Text{ZH: "评价", EN: "Evaluation"}.In(in.Lang), evaluationTable(&e, in.Lang)},
			sheet{citywarden.Text{ZH: "说明", EN: "How"}.In(in.Lang), s.evaluationNotes(&e, in.Lang)})
	default:
		out.Body, err = json.Marshal(e)
	}
	if in.Format == "csv" || in.Format == "xlsx" {
		out.Disposition = fmt.Sprintf("attachment; filename=%q", fmt.Sprintf("evaluation-%s-%s.%s", e.By, e.From.In(s.zone).Format("20060102"), in.Format))
	}
	return out, err
}

func (s *server) evaluatedCases(ctx context.Context, in *struct {
	EvaluationParams
	Paging
	Indicator string          `query:"indicator" required:"true" maxLength:"64" doc:"Its code"`
	Key       string          `query:"key" maxLength:"200" doc:"Of the row; all when left out. By post: a post, or a post and a person like acceptor/lin"`
	Part      citywarden.Part `query:"part" enum:"numerator,denominator,rest" default:"numerator" doc:"rest: those of the denominator that are not in the numerator"`
}) (*listOutput[citywarden.Case], error) {
	q, err := s.query(ctx, in.EvaluationParams)
	if err != nil {
		return nil, err
	}
	cs, next, err := s.Evaluations.EvaluatedCases(ctx, q, in.Indicator, in.Key, in.Part, in.page())
	if err != nil {
		return nil, err
	}
	if cs, err = s.casesFor(ctx, callerOf(ctx), cs); err != nil {
		return nil, err
	}
	return listOf(cs, next), nil
}

// cell is a text, an int, a share or nil for nothing.
type cell any

// share is a number of 0 to 1.
type share float64

type sheet struct {
	name  string
	cells [][]cell
}

// evaluationTable has a line for each row of e, the total last.
func evaluationTable(e *citywarden.Evaluation, lang string) [][]cell {
	say := func(zh, en string) string { return citywarden.Text{ZH: zh, EN: en}.In(lang) }
	head := []cell{say("编码", "key"), say("名称", "name")}
	for _, x := range e.Indicators {
		name := x.Name.In(lang)
		if x.Denominator == nil {
			head = append(head, name)
			continue
		}
		head = append(head, name, name+say("：", ": ")+x.Numerator.In(lang), name+say("：", ": ")+x.Denominator.Name.In(lang))
	}
	out := [][]cell{append(head, say("综合得分", "score"), say("等级", "grade"))}
	rows := e.Rows
	if e.Total != nil {
		rows = append(rows[:len(rows):len(rows)], *e.Total)
	}
	for i := range rows {
		r := &rows[i]
		line := []cell{r.Key, r.Name.In(lang)}
		for _, x := range e.Indicators {
			f := r.Figure(x.Code)
			has := f.Indicator != ""
			switch {
			case x.Denominator == nil && has:
				line = append(line, f.Cases)
			case x.Denominator == nil:
				line = append(line, nil)
			case !has:
				line = append(line, nil, nil, nil)
			case f.Rate == nil:
				line = append(line, nil, f.Cases, f.Of)
			default:
				line = append(line, share(*f.Rate), f.Cases, f.Of)
			}
		}
		if r.Score == nil {
			out = append(out, append(line, nil, nil))
			continue
		}
		out = append(out, append(line, *r.Score, r.Grade))
	}
	return out
}

// evaluationNotes say how the figures of e came about.
func (s *server) evaluationNotes(e *citywarden.Evaluation, lang string) [][]cell {
	say := func(zh, en string) string { return citywarden.Text{ZH: zh, EN: en}.In(lang) }
	at := func(t time.Time) string { return t.In(s.zone).Format("2006-01-02 15:04:05Z07:00") }
	out := [][]cell{
		{say("起", "from"), at(e.From)}, {say("止（不含）", "to (exclusive)"), at(e.To)}, {say("统计截至", "as of"), at(e.AsOf)}, {},
		{say("指标", "indicator"), say("分子", "numerator"), say("分母", "denominator"), say("依据", "clause")},
	}
	for _, x := range e.Indicators {
		line := []cell{x.Name.In(lang), x.Numerator.In(lang), nil, x.Clause}
		if x.Denominator != nil {
			line[2] = x.Denominator.Name.In(lang)
		}
		out = append(out, line)
	}
	out = append(out, []cell{}, []cell{say("综合得分", "score"), say("指标", "indicator"), say("权重（%）", "weight (%)")})
	for _, r := range e.Scores {
		for _, p := range r.Parts {
			name := p.Indicator
			for _, x := range e.Indicators {
				if x.Code == p.Indicator {
					name = x.Name.In(lang)
				}
			}
			out = append(out, []cell{r.Name.In(lang), name, p.Weight})
		}
	}
	out = append(out, []cell{}, []cell{say("等级", "grade"), say("最低分", "lowest score")})
	for _, g := range e.Grades {
		out = append(out, []cell{g.Grade, g.From})
	}
	return out
}

// asCSV writes cells so that spreadsheets know the encoding and take no text for a
// formula.
func asCSV(cells [][]cell) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("\ufeff")
	w := csv.NewWriter(&b)
	for _, line := range cells {
		texts := make([]string, len(line))
		for i, c := range line {
			switch c := c.(type) {
			case string:
				texts[i] = c
				if t := strings.TrimLeft(c, "' \t\r\n"); t != "" && strings.ContainsRune("=+-@", rune(t[0])) {
					texts[i] = "'" + c
				}
			case int:
				texts[i] = strconv.Itoa(c)
			case share:
				texts[i] = strconv.FormatFloat(100*float64(c), 'f', 2, 64) + "%"
			case float64:
				texts[i] = strconv.FormatFloat(c, 'f', -1, 64)
			}
		}
		if err := w.Write(texts); err != nil {
			return nil, err
		}
	}
	w.Flush()
	return b.Bytes(), w.Error()
}

// asXLSX writes a workbook. A text is a text, whatever it begins with.
func asXLSX(sheets ...sheet) ([]byte, error) {
	f := excelize.NewFile()
	defer f.Close()
	percent, err := f.NewStyle(&excelize.Style{NumFmt: 10}) // 0.00%
	if err != nil {
		return nil, fmt.Errorf("make a workbook: %w", err)
	}
	bold, err := f.NewStyle(&excelize.Style{Font: &excelize.Font{Bold: true}, Alignment: &excelize.Alignment{WrapText: true, Vertical: "top"}})
	if err != nil {
		return nil, fmt.Errorf("make a workbook: %w", err)
	}
	for i, sh := range sheets {
		if i == 0 {
			err = f.SetSheetName("Sheet1", sh.name)
		} else {
			_, err = f.NewSheet(sh.name)
		}
		if err != nil {
			return nil, fmt.Errorf("make a workbook: %w", err)
		}
		if err := writeSheet(f, sh, i == 0, percent, bold); err != nil {
			return nil, fmt.Errorf("make a workbook: %w", err)
		}
	}
	b, err := f.WriteToBuffer()
	if err != nil {
		return nil, fmt.Errorf("make a workbook: %w", err)
	}
	return b.Bytes(), nil
}

// writeSheet writes sh; head says that the first line stays in sight.
func writeSheet(f *excelize.File, sh sheet, head bool, percent, bold int) error {
	w, err := f.NewStreamWriter(sh.name)
	if err != nil {
		return err
	}
	if err := w.SetColWidth(1, 2, 20); err != nil {
		return err
	}
	if head {
		if err := w.SetPanes(&excelize.Panes{Freeze: true, XSplit: 2, YSplit: 1, TopLeftCell: "C2", ActivePane: "bottomRight"}); err != nil {
			return err
		}
	}
	for i, line := range sh.cells {
		values := make([]any, len(line))
		for j, c := range line {
			switch c := c.(type) {
			case share:
				values[j] = excelize.Cell{StyleID: percent, Value: float64(c)}
			case string:
				values[j] = c
				if head && i == 0 {
					values[j] = excelize.Cell{StyleID: bold, Value: c}
				}
			default:
				values[j] = c
			}
		}
		if err := w.SetRow(fmt.Sprintf("A%d", i+1), values); err != nil {
			return err
		}
	}
	return w.Flush()
}
