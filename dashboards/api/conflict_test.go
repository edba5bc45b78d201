package api

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/citywarden/citywarden"
)

// Two dispatchers look at one case and dispatch it at the same moment: one wins,
// the other is told who was faster, and changes nothing.
func TestTwoDispatchersAtOnce(t *testing.T) {
	marks := landmarks()
	p := newCounty(t, marks)
	var tokens [2]string
	for i, name := range []string{"sun", "wu"} {
		if _, err := p.accounts.Create(t.Context(), citywarden.User{Name: name, Role: citywarden.RoleDispatcher}, "dispatches"); err != nil {
			t.Fatal(err)
		}
		token, _, err := p.accounts.open(t.Context(), name, "", SessionLife)
		if err != nil {
			t.Fatal(err)
		}
		tokens[i] = token
	}
	departments := [2]string{"water", "roads"}
	for _, l := range marks {
		path := "/api/v1/cases/" + l.made["case"]
		tag := p.do(tokens[0], "GET "+path, "").header.Get("ETag")
		var answers [2]answer
		var both sync.WaitGroup
		for i, token := range tokens {
			both.Go(func() {
				answers[i] = p.do(token, "POST "+path+"/actions/dispatch", `{"department":"`+departments[i]+`"}`, "If-Match", tag)
			})
		}
		both.Wait()
		won := 0
		if answers[1].status == http.StatusOK {
			won = 1
		}
		if a := answers[won]; a.status != http.StatusOK || a.header.Get("ETag") == tag {
			t.Fatalf("dispatch = %d %s with ETag %s", a.status, a.body, a.header.Get("ETag"))
		}
		lost := answers[1-won].problem(t)
		if winner := []string{"sun", "wu"}[won]; lost.Status != http.StatusConflict || lost.Code != citywarden.CodeConflict || !strings.Contains(lost.Detail, winner) {
			t.Errorf("the slower one is told %d %q, want 409 and the name of %s", lost.Status, lost.Detail, winner)
		}
		var c citywarden.Case
		p.do(tokens[0], "GET "+path, "").into(t, &c)
		dispatched := 0
		for _, s := range c.Timeline {
			if s.Action == citywarden.Dispatch {
				dispatched++
			}
		}
		if c.Department != departments[won] || dispatched != 1 {
			t.Errorf("the case is with %s after %d dispatches, want %s after one", c.Department, dispatched, departments[won])
		}
	}
	if a := p.do(tokens[0], "POST /api/v1/cases/"+marks[0].made["case"]+"/actions/redispatch", `{"department":"gas","note":"x"}`, "If-Match", "yesterday"); a.status != http.StatusBadRequest {
		t.Errorf("an If-Match that is no ETag = %d %s, want 400", a.status, a.body)
	}
}
