package api

import (
	"encoding/csv"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/xuri/excelize/v2"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/store"
)

// evaluated has a case of a department whose name is a formula, handled in time,
// and one of the department fire that is overdue.
func evaluated(t *testing.T) *platform {
	t.Helper()
	p := newPlatform(t)
	began := time.Now().Add(-3 * time.Hour).UTC().Truncate(time.Millisecond)
	err := p.db.UpdateDesk(t.Context(), func(tx *store.DeskTx) error {
		for id, department := range map[citywarden.CaseID]string{"E1": `=HYPERLINK("http://x")`, "E2": "fire"} {
			c := citywarden.Case{ID: id, Class: "event/0501", Source: citywarden.SourceSensor, Stage: citywarden.Handling, Department: department, Opened: began, Revision: 1}
			w := citywarden.CaseWork{Kind: citywarden.WorkHandle, Department: department, Began: began, Due: began.Add(time.Hour)}
			if id == "E1" {
				w.Done = began.Add(time.Minute)
			}
			if err := tx.SaveCase(t.Context(), c, 0); err != nil {
				return err
			}
			if err := tx.SetWork(t.Context(), id, []citywarden.CaseWork{w}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const evaluationPath = "/api/v1/evaluation?by=department&from=2020-01-01"

func TestEvaluationAsFiles(t *testing.T) {
	p := evaluated(t)
	viewer := p.as(citywarden.RoleViewer)
	a := p.do(viewer, "GET "+evaluationPath+"&format=csv&lang=en", "")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/csv; charset=utf-8" || a.header.Get("Content-Disposition") != `attachment; filename="evaluation-department-20200101.csv"` {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	text, bom := strings.CutPrefix(a.body, "\ufeff")
	lines, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || !bom || len(lines) != 4 {
		t.Fatalf("byte order mark %v, %d lines, %v:\n%s", bom, len(lines), err, a.body)
	}
	if got := lines[1][0]; got != `'=HYPERLINK("http://x")` {
		t.Errorf("a department that is a formula is written as %s", got)
	}
	if got := strings.Join(lines[1][2:6], " "); got != "1 100.00% 1 1" {
		t.Errorf("the handled one: %s", got)
	}
	if got := strings.Join(lines[2][:6], " "); got != "fire fire 0 0.00% 0 1" {
		t.Errorf("the overdue one: %s", got)
	}
	a = p.do(viewer, "GET "+evaluationPath+"&format=xlsx", "")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != xlsxType {
		t.Fatalf("%d %v", a.status, a.header)
	}
	f, err := excelize.OpenReader(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	kind, err := f.GetCellType("评价", "A2")
	if formula, _ := f.GetCellFormula("评价", "A2"); err != nil || formula != "" || kind != excelize.CellTypeInlineString && kind != excelize.CellTypeSharedString {
		t.Errorf("a department that is a formula is of type %v with formula %q, %v", kind, formula, err)
	}
	for _, c := range []struct{ sheet, cell, want string }{
		{"评价", "A2", `=HYPERLINK("http://x")`}, {"评价", "C1", "处置数"}, {"评价", "D2", "100.00%"}, {"评价", "B4", "合计"}, {"说明", "A5", "指标"},
		{"说明", "B1", "2020-01-01 00:00:00+08:00"},
	} {
		if got, err := f.GetCellValue(c.sheet, c.cell); err != nil || got != c.want {
			t.Errorf("%s!%s is %q, %v; want %q", c.sheet, c.cell, got, err, c.want)
		}
	}
}

func TestADepartmentSeesItsOwnEvaluation(t *testing.T) {
	p := evaluated(t)
	department := p.as(citywarden.RoleDepartment) // fire
	var e citywarden.Evaluation
	p.do(department, "GET "+evaluationPath, "").into(t, &e)
	if len(e.Rows) != 1 || e.Rows[0].Key != "fire" || e.Total.Figure("overdue_rate").Cases != 1 {
		t.Errorf("it sees %+v, in all %+v", e.Rows, e.Total)
	}
	var cs struct{ Items []citywarden.Case }
	p.do(department, "GET /api/v1/evaluation/cases?by=department&from=2020-01-01&indicator=overdue_rate", "").into(t, &cs)
	if len(cs.Items) != 1 || cs.Items[0].ID != "E2" {
		t.Errorf("behind its overdue rate are %+v", cs.Items)
	}
	for path, status := range map[string]int{
		"/api/v1/evaluation?by=post": http.StatusForbidden,
		"/api/v1/evaluation?by=area": http.StatusForbidden,
		"/api/v1/evaluation/cases?by=department&from=2020-01-01&indicator=handled&key=roads": http.StatusForbidden,
		"/api/v1/evaluation":                         http.StatusBadRequest,
		"/api/v1/evaluation?by=department&from=soon": http.StatusBadRequest,
	} {
		if a := p.do(department, "GET "+path, ""); a.status != status {
			t.Errorf("%s: %d %s, want %d", path, a.status, a.body, status)
		}
	}
}
