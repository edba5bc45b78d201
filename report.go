package citywarden

import (
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Reporter is the person who reported a case. It is kept apart from the case:
// only those who verify and call back may see it.
type Reporter struct {
	Name  string `json:"name,omitempty"`
	Phone string `json:"phone,omitempty"`
	Email string `json:"email,omitempty"`
}

// Report is what somebody outside of the administration says. A case is opened
// for it, and it is kept beside the case.
type Report struct {
	Case        CaseID            `json:"case"`
	Source      Source            `json:"source"`
	App         string            `json:"app,omitempty"` // that it came by: the name of its API key
	Class       ClassCode         `json:"class"`         // as reported; the case may be filed as another
	Description string            `json:"description,omitempty"`
	FilingRule  string            `json:"filing_rule,omitempty"` // of the class, as reported; "" for the first
	Answers     map[string]string `json:"answers,omitempty"`     // to questions of the class
	Component   ComponentID       `json:"component,omitempty"`   // that it is about, when the reporter says so
	Location    *Point            `json:"location,omitempty"`
	Address     string            `json:"address,omitempty"` // in words
	AddressID   string            `json:"address_id,omitempty"`
	Media       string            `json:"media_url,omitempty"` // where the app keeps a picture; never fetched
	Account     string            `json:"account,omitempty"`   // of the person in the app
	Reporter    Reporter          `json:"reporter"`
	At          time.Time         `json:"at"`
}

// MaxDescription is the greatest length of a report's description, in characters
// (Open311 GeoReport v2).
const MaxDescription = 4000

var html = regexp.MustCompile(`<[A-Za-z/!][^<>]*>`)

// Check returns a CodeInvalid error that says what is missing or too long.
func (r *Report) Check() error {
	for _, f := range []struct {
		name, text string
		most       int
	}{
		{"description", r.Description, MaxDescription}, {"address", r.Address, 300}, {"address id", r.AddressID, 100}, {"media URL", r.Media, 1000},
		{"account", r.Account, 200}, {"name", r.Reporter.Name, 100}, {"phone", r.Reporter.Phone, 40}, {"e-mail address", r.Reporter.Email, 200},
	} {
		switch {
		case !utf8.ValidString(f.text):
			return Errorf(CodeInvalid, "report: the %s is not UTF-8", f.name)
		case utf8.RuneCountInString(f.text) > f.most:
			return Errorf(CodeInvalid, "report: the %s has more than %d characters", f.name, f.most)
		case strings.ContainsFunc(f.text, func(c rune) bool { return c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7f }):
			return Errorf(CodeInvalid, "report: the %s holds control characters", f.name)
		}
	}
	if html.MatchString(r.Description) {
		return Errorf(CodeInvalid, "report: the description holds HTML; write plain text")
	}
	if r.Location == nil && r.Component == "" && r.Address == "" && r.AddressID == "" {
		return Errorf(CodeInvalid, "report: say where it is, by position or address")
	}
	if r.Location == nil {
		return nil
	}
	if *r.Location == (Point{}) {
		return Errorf(CodeInvalid, "report: the position 0, 0 is what a phone says that does not know it; send none and an address instead")
	}
	return r.Location.Check()
}

// ReportFilter selects reports; zero fields select all.
type ReportFilter struct {
	Source  Source
	ByApp   bool        // only what apps reported with keys of their own, not what somebody entered for them
	Cases   []CaseID    // only of these
	Classes []ClassCode // of the case as it is now
	Open    *bool       // only those that people have, or don't have, something to do with
	From    time.Time   // when the case was opened, inclusive
	To      time.Time   // exclusive
	Skip    int         // of the newest
	Limit   int
}

// ReportedCase is a report with what became of it.
type ReportedCase struct {
	Report
	Now     Case // without timeline and alarms
	Updated time.Time
}

// Progress is how far a reported case is, as the person who reported it may
// know.
type Progress string

// The progress of a case that goes well, then the other ends.
const (
	ProgressReceived Progress = "received"
	ProgressWorking  Progress = "working"
	ProgressChecking Progress = "checking"
	ProgressDone     Progress = "done"
	ProgressMerged   Progress = "merged"
	ProgressRefused  Progress = "refused"
)

// Progresses are all of them.
var Progresses = []Progress{ProgressReceived, ProgressWorking, ProgressChecking, ProgressDone, ProgressMerged, ProgressRefused}

// Text returns p in words.
func (p Progress) Text() Text {
	switch p {
	case ProgressReceived:
		return Text{ZH: "已收到，待核实立案", EN: "received, waits to be verified and filed"}
	case ProgressWorking:
		return Text{ZH: "已立案，处理中", EN: "filed, is worked on"}
	case ProgressChecking:
		return Text{ZH: "已处置，待核查", EN: "reported done, waits to be checked"}
	case ProgressDone:
		return Text{ZH: "已结案", EN: "closed"}
	case ProgressMerged:
		return Text{ZH: "与另一案件重复，已并案处理", EN: "a duplicate; another case deals with it"}
	}
	return Text{ZH: "不予立案或已作废", EN: "not taken up"}
}

// Progress returns how far c is.
func (c *Case) Progress() Progress {
	switch {
	case c.Stage == Closed:
		return ProgressDone
	case c.MergedInto != "":
		return ProgressMerged
	case !c.Stage.Open():
		return ProgressRefused
	case !c.HandledAt.IsZero():
		return ProgressChecking
	case !c.Filed.IsZero():
		return ProgressWorking
	}
	return ProgressReceived
}

// APIKey lets an app report cases (Open311 GeoReport v2).
type APIKey struct {
	ID        string    `json:"id"`   // SHA-256 of the key in hex; the key itself is kept nowhere
	Name      string    `json:"name"` // of the app
	Contact   string    `json:"contact,omitempty"`
	PerMinute int       `json:"per_minute"` // how many requests it may report
	Created   time.Time `json:"created"`
}
