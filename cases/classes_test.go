package cases_test

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

func classesOf(t *testing.T, standard, csv string) *cases.Classes {
	t.Helper()
	var own []fs.FS
	if csv != "" {
		own = append(own, fstest.MapFS{"classes.csv": {Data: []byte(csv)}})
	}
	c, err := cases.LoadClasses(standard, own...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The two numberings stand side by side, and say what is what in the other.
func TestNumberings(t *testing.T) {
	c := classesOf(t, citywarden.CJT214, "")
	for _, tt := range []struct {
		code  citywarden.ClassCode
		name  string
		same  string
		limit string
		group string
	}{
		{"event/0501", "供水管道破裂", "event/0402@cjt214", "1紧急工作时", "突发事件"},
		{"event/0402@cjt214", "自来水管破裂", "event/0501", "1紧急工作时", "突发事件"},
		{"event/0404@cjt214", "下水道堵塞或破损", "event/0503", "4小时", "突发事件"},
		{"event/0504@cjt214", "店外经营", "event/0405", "", "街面秩序"},
		{"event/0405", "店外经营", "event/0504@cjt214", "", "街面秩序"},
		{"component/0123", "不明井盖", "component/0114@cjt214", "2紧急工作时", "公用设施"},
		{"component/0114", "园林井盖", "", "2紧急工作时", "公用设施"},
		{"component/0208@cjt214", "跨河桥", "component/0209", "", "道路交通设施"},
		{"event/0499@cjt214", "其他", "", "", "突发事件"},
	} {
		k, ok := c.Class(tt.code)
		same := ""
		if len(k.Same) > 0 {
			same = string(k.Same[0])
		}
		_, group := k.Code.Group()
		if !ok || k.Name.ZH != tt.name || k.Name.EN == "" || same != tt.same || k.Limit != tt.limit || group.ZH != tt.group || k.Standard != tt.code.Standard() {
			t.Errorf("%s = %+v of %s, want %+v", tt.code, k, group.ZH, tt)
		}
	}
	in, other := c.All(), c.Of(citywarden.GBT30428)
	if len(in) != 120 || len(other) < 190 || in[0].Code != "component/0101@cjt214" {
		t.Errorf("%d classes here, the first %s, %d of the other numbering", len(in), in[0].Code, len(other))
	}
	for _, k := range c.Of("") {
		for _, s := range k.Same {
			if o, ok := c.Class(s); !ok || !strings.Contains(string(s)+string(k.Code), "@cjt214") || len(o.Same) == 0 {
				t.Errorf("%s is the same as %s: %+v", k.Code, s, o)
			}
		}
		for _, r := range k.Rules {
			if _, err := cases.ParseLimit(r.Limit); err != nil {
				t.Errorf("%s: %v", k.Code, err)
			}
		}
	}
	if _, err := cases.LoadClasses("GB 30428"); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("another standard: %v", err)
	}
}

// A city's own table changes what it names and keeps the rest.
func TestOwnClasses(t *testing.T) {
	c := classesOf(t, "", "\ufeffcode;filing_condition;limit;department;name_zh;same_as\n"+
		"component/0101;缺失;1紧急工作时;漳浦自来水公司;;\n"+
		"component/0101;破损;1天;漳浦自来水公司;;\n"+
		"event/0599;台风积水;2紧急工作时;应急管理局;台风;event/0499@cjt214\n")
	k, _ := c.Class("component/0101")
	if diff := cmp.Diff([]citywarden.FilingRule{
		{ID: "1", Condition: "缺失", Limit: "1紧急工作时", Department: "漳浦自来水公司"}, {ID: "2", Condition: "破损", Limit: "1天", Department: "漳浦自来水公司"},
	}, k.Rules); diff != "" || k.Name.ZH != "上水井盖" || k.Limit != "1紧急工作时" {
		t.Errorf("%+v, rules (-want +got):\n%s", k, diff)
	}
	if k, _ := c.Class("component/0101@cjt214"); k.Limit != "1紧急工作时" || len(k.Rules) != 2 {
		t.Errorf("what is the same has not changed with it: %+v", k)
	}
	if k, _ := c.Class("component/0102"); len(k.Rules) != 4 {
		t.Errorf("another class has changed: %+v", k)
	}
	if k, _ := c.Class("event/0499@cjt214"); k.Limit != "2紧急工作时" || len(k.Same) != 1 {
		t.Errorf("event/0499@cjt214 = %+v", k)
	}
	for csv, want := range map[string]string{
		"code,name_zh\nevent/599,x\n":                            `classes.csv:2: bad code "event/599"`,
		"code,name_zh\nevent/0598,\n":                            "classes.csv:2: event/0598 has no name",
		"code,limit\nevent/0501,2 hours\n":                       "classes.csv:2: ",
		"code,limit\nevent/0501,1天\nevent/0501,2天\n":             "classes.csv:3: event/0501 is there twice with the same filing condition",
		"code,same_as\nevent/0501,event/0502\n":                  "classes.csv:2: event/0501 can't be the same as",
		"code,name_zh,same_as\nevent/0598,x,event/0498@cjt214\n": "event/0598 is the same as event/0498@cjt214, which there is not",
		"code,hours\nevent/0501,2\n":                             `classes.csv: line 1: unknown column "hours"`,
	} {
		_, err := cases.LoadClasses("", fstest.MapFS{"classes.csv": {Data: []byte(csv)}})
		if citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", csv, err, want)
		}
	}
}

// A case keeps the conditions and the limit of the version that it was filed
// under, and says which that was.
func TestCaseKeepsItsVersion(t *testing.T) {
	db, err := store.Open(t.Context(), pgtest.Place(t, filepath.Join(t.TempDir(), "x.db")))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	open := func(csv string) (*cases.Classes, *cases.Desk) {
		t.Helper()
		c := classesOf(t, "", csv)
		if err := c.Keep(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		d, err := cases.New(db, cases.Options{Classes: c})
		if err != nil {
			t.Fatal(err)
		}
		return c, d
	}
	do := func(d *cases.Desk, id citywarden.CaseID, s citywarden.CaseStep) (citywarden.Case, error) {
		s.By, s.Role = "admin", citywarden.RoleAdmin
		return d.Do(t.Context(), id, s, 0)
	}
	check := func(c citywarden.Case, rule string, version int, limit string) {
		t.Helper()
		if c.FilingRule != rule || c.ClassVersion != version || c.Limit != limit {
			t.Errorf("case %s has rule %q of version %d with the limit %q; want %q of %d with %q", c.ID, c.FilingRule, c.ClassVersion, c.Limit, rule, version, limit)
		}
	}
	_, d := open("")
	c, err := d.Create(t.Context(), citywarden.NewCase{Class: "component/0101", Title: "cover"}, "admin", citywarden.RoleAdmin)
	if err != nil {
		t.Fatal(err)
	}
	check(c, "1", 1, "2紧急工作时")
	if c.ID[0] != 'C' || c.Timeline[0].Stage != citywarden.PendingFiling {
		t.Errorf("case %+v", c)
	}
	other, err := d.Create(t.Context(), citywarden.NewCase{Class: "component/0101@cjt214", FilingRule: "3", Title: "cover"}, "admin", citywarden.RoleAdmin)
	if err != nil {
		t.Fatal(err)
	}
	check(other, "3", 1, "2天")
	if !strings.HasPrefix(string(other.ID), "C0101") {
		t.Errorf("number %s", other.ID)
	}
	if _, err := d.Create(t.Context(), citywarden.NewCase{Class: "component/0101", FilingRule: "9", Title: "cover"}, "admin", citywarden.RoleAdmin); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("a rule that there is not: %v", err)
	}

	open("") // the same table is the same version
	table, d := open("code,filing_condition,limit,department\ncomponent/0101,缺失,1紧急工作时,漳浦自来水公司\ncomponent/0101,破损,3天,乡镇\n")
	if c, err = do(d, c.ID, citywarden.CaseStep{Action: citywarden.File}); err != nil {
		t.Fatal(err)
	}
	check(c, "1", 1, "2紧急工作时")
	if _, err := do(d, other.ID, citywarden.CaseStep{Action: citywarden.File, Class: "component/0101", FilingRule: "3"}); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("filed by a rule that is gone: %v", err)
	}
	if other, err = do(d, other.ID, citywarden.CaseStep{Action: citywarden.File, Class: "component/0101", FilingRule: "2"}); err != nil {
		t.Fatal(err)
	}
	check(other, "2", 2, "3天")
	if other, err = do(d, other.ID, citywarden.CaseStep{Action: citywarden.Dispatch}); err != nil || other.Department != "乡镇" {
		t.Errorf("dispatched to %q, %v; want the department of the rule", other.Department, err)
	}

	versions, err := table.Tables(t.Context())
	if err != nil || len(versions) != 2 || versions[1].Version != 2 || versions[1].From.IsZero() {
		t.Errorf("versions %+v, %v", versions, err)
	}
	for version, want := range map[int]string{1: "2紧急工作时", 2: "1紧急工作时", 0: "1紧急工作时"} {
		old, err := table.Table(t.Context(), version)
		if err != nil || len(old.Classes) < 300 || old.Classes[0].Limit != want {
			t.Errorf("version %d: %d classes, %v", version, len(old.Classes), err)
		}
	}
	if _, err := table.Table(t.Context(), 3); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("version 3: %v", err)
	}
}
