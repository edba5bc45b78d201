package api

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

type info struct {
	Version  string           `json:"version,omitempty" doc:"Left out for those who are not signed in"`
	Demo     bool             `json:"demo" doc:"This is the demo county"`
	Citizens bool             `json:"citizens" doc:"Anybody may report at /report"`
	TimeZone string           `json:"time_zone" doc:"IANA name"`
	Now      time.Time        `json:"now"`
	Trouble  *citywarden.Text `json:"trouble,omitempty" doc:"Why messages of devices are not acknowledged, or not written to the time series, at the moment; left out while they are, and for those who are not signed in"`
	MQTT     string           `json:"mqtt,omitempty" doc:"host:port for the MQTT connection of a device; left out when MQTT is off, and for those who are not signed in"`
}

type summary struct {
	Devices deviceCount `json:"devices"`
	Alarms  alarmCount  `json:"alarms"`
	Cases   caseCount   `json:"cases"`
}

// viewer is all who see the same.
type viewer struct {
	area       citywarden.AreaCode
	department string
}

// counted is a summary as it was at a time.
type counted struct {
	summary summary
	at      time.Time
}

type deviceCount struct {
	Total  int `json:"total"`
	Online int `json:"online"`
	Silent int `json:"silent"`
	Never  int `json:"never"`
}

type alarmCount struct {
	Active     int            `json:"active" doc:"Active, and not suppressed: those that call for a person"`
	Unacked    int            `json:"unacked" doc:"Of those, the ones that nobody has acknowledged"`
	BySeverity map[string]int `json:"by_severity" doc:"Active alarms that are not suppressed"`
	Suppressed int            `json:"suppressed" doc:"Active, but shelved, out of service, or explained by another alarm"`
}

type caseCount struct {
	Open    int            `json:"open"`
	Overdue int            `json:"overdue" doc:"Open, and their light is red"`
	ByStage map[string]int `json:"by_stage" doc:"Open cases"`
}

func (s *server) infoRoutes() {
	const tag = "platform"
	handle(s, route{method: "GET", path: "/api/v1/info", id: "get-info", tag: tag, public: true,
		summary: "What this platform is"}, s.info)
	handle(s, route{method: "GET", path: "/api/v1/summary", id: "get-summary", tag: tag, may: citywarden.MayRead,
		summary: "How many devices, alarms and cases the caller sees, at most a second old"}, s.summarize)
}

func (s *server) info(ctx context.Context, _ *struct{}) (*output[info], error) {
	out := info{Demo: s.Demo, Citizens: s.Citizens, TimeZone: s.TimeZone, Now: time.Now().UTC()}
	if callerOf(ctx).Name != "" {
		out.Version, out.MQTT = s.Version, reachable(s.MQTT, requestOf(ctx).host)
		if s.Trouble != nil {
			if t := s.Trouble(); t != (citywarden.Text{}) {
				out.Trouble = &t
			}
		}
	}
	return outputOf(out), nil
}

// reachable returns the address of a listener as somebody uses it who reached
// this platform as host: a listener on all addresses is at that host too.
func reachable(addr, host string) string {
	name, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	if ip, err := netip.ParseAddr(name); name != "" && (err != nil || !ip.IsUnspecified()) {
		return addr
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host = strings.Trim(host, "[]"); host == "" {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

func (s *server) summarize(ctx context.Context, _ *struct{}) (*output[summary], error) {
	s.summaryMu.Lock()
	defer s.summaryMu.Unlock()
	u := callerOf(ctx)
	maps.DeleteFunc(s.summaries, func(_ viewer, x counted) bool { return time.Since(x.at) >= time.Second })
	x, ok := s.summaries[viewer{u.Area, u.Department}]
	if !ok {
		var err error
		if x.summary, err = s.count(ctx, u); err != nil {
			return nil, err
		}
		x.at = time.Now()
		s.summaries[viewer{u.Area, u.Department}] = x
	}
	return outputOf(x.summary), nil
}

// count counts what u sees.
func (s *server) count(ctx context.Context, u citywarden.User) (summary, error) {
	n := s.Devices.Summary(u.Area)
	sum := summary{
		Devices: deviceCount{Online: n[citywarden.StatusOnline], Silent: n[citywarden.StatusSilent], Never: n[citywarden.StatusNever]},
		Alarms:  alarmCount{BySeverity: map[string]int{}},
		Cases:   caseCount{ByStage: map[string]int{}},
	}
	sum.Devices.Total = sum.Devices.Online + sum.Devices.Silent + sum.Devices.Never
	err := pages(func(p citywarden.Page) (string, error) {
		as, next, err := s.Alarms.Alarms(ctx, citywarden.AlarmFilter{Area: u.Area, State: citywarden.AlarmActive, Page: p})
		for i := range as {
			if as[i].Suppressed() {
				sum.Alarms.Suppressed++
				continue
			}
			sum.Alarms.Active++
			sum.Alarms.BySeverity[as[i].Severity.String()]++
			if !as[i].Acked {
				sum.Alarms.Unacked++
			}
		}
		return next, err
	})
	if err != nil {
		return summary{}, err
	}
	f := citywarden.CaseFilter{Open: true}
	if err := f.SeenBy(u); err != nil {
		return summary{}, err
	}
	err = pages(func(p citywarden.Page) (string, error) {
		f.Page = p
		cs, next, err := s.Cases.Cases(ctx, f)
		for i := range cs {
			sum.Cases.Open++
			sum.Cases.ByStage[string(cs[i].Stage)]++
			if cs[i].Light == citywarden.Red {
				sum.Cases.Overdue++
			}
		}
		return next, err
	})
	return sum, err
}

// pages calls f for every page of a list.
func pages(f func(citywarden.Page) (next string, err error)) error {
	p := citywarden.Page{Limit: citywarden.MaxPage}
	for {
		next, err := f(p)
		if err != nil || next == "" {
			return err
		}
		p.After = next
	}
}
