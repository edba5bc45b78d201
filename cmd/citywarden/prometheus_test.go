package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// prometheus is a real one that scrapes a platform; its address, "" where none is installed.
type prometheus string

func startPrometheus(t *testing.T, p *process) prometheus {
	t.Helper()
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Log("prometheus is not installed: the panels that ask one are not run")
		return ""
	}
	dir, addr := t.TempDir(), freeAddr(t)
	writeFile(t, filepath.Join(dir, "p.yml"), fmt.Sprintf(
		"scrape_configs:\n- job_name: citywarden\n  scrape_interval: 1s\n  static_configs:\n  - targets: [%q]\n", strings.TrimPrefix(p.http, "http://")))
	cmd := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "p.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	var said buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if !wait(30*time.Second, func() bool {
		res, err := http.Get("http://" + addr + "/-/ready")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	}) {
		t.Fatalf("prometheus is not ready; it says:\n%s", &said)
	}
	return prometheus("http://" + addr)
}

// answers says how many rows expr has, with an error while it has none.
func (p prometheus) answers(expr string) error {
	q := strings.ReplaceAll(expr, "$__rate_interval", "30s")
	res, err := http.Get(string(p) + "/api/v1/query?" + url.Values{"query": {q}}.Encode())
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var got struct {
		Error string
		Data  struct{ Result []any }
	}
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		return err
	}
	if got.Error != "" || len(got.Data.Result) == 0 {
		return fmt.Errorf("no rows of %s; %s", q, got.Error)
	}
	return nil
}

// run asks what a panel asks, as Grafana would, until it has an answer.
func (p prometheus) run(t *testing.T, panel string, target json.RawMessage) {
	t.Helper()
	var asked struct{ Expr string }
	if err := json.Unmarshal(target, &asked); err != nil || asked.Expr == "" {
		t.Errorf("%s asks no Prometheus: %s (%v)", panel, target, err)
		return
	}
	var err error
	if p != "" && !wait(30*time.Second, func() bool { err = p.answers(asked.Expr); return err == nil }) {
		t.Errorf("%s is empty: %v", panel, err)
	}
}
