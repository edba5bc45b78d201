package api

import (
	"encoding/json"
	"reflect"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
)

// The root package may not know OpenAPI, so the schemas of the types that
// write themselves in JSON stand here, each as a type that huma looks up
// instead of the real one.
type (
	valueSchema      struct{}
	durationSchema   struct{}
	severitySchema   struct{}
	kindSchema       struct{}
	qualitySchema    struct{}
	stageSchema      struct{}
	actionSchema     struct{}
	alarmStateSchema struct{}
	transitionSchema struct{}
	statusSchema     struct{}
	roleSchema       struct{}
	lightSchema      struct{}
	domainSchema     struct{}
	sourceSchema     struct{}
	whyNotSchema     struct{}
	requestSchema    struct{}
	satisfiedSchema  struct{}
	attachmentSchema struct{}
	progressSchema   struct{}
	needSchema       struct{}
	commandSchema    struct{}
	noticeSchema     struct{}
	bySchema         struct{}
	betterSchema     struct{}
)

func (valueSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Description: "A number, a bool or a text",
		AnyOf:       []*huma.Schema{{Type: "number"}, {Type: "boolean"}, {Type: "string"}, {Type: "null"}},
	}
}

func (durationSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "string", Description: "A duration like 90s, 15m, 2h30m or 7d", Examples: []any{"15m"}}
}

func (severitySchema) Schema(huma.Registry) *huma.Schema {
	s := enum[string]("Perceived severity (ITU-T X.733)")
	for v := citywarden.Indeterminate; v <= citywarden.Critical; v++ {
		s.Enum = append(s.Enum, v.String())
	}
	return s
}

func (kindSchema) Schema(huma.Registry) *huma.Schema {
	return enum("The type of a value", citywarden.KindNumber.String(), citywarden.KindBool.String(), citywarden.KindText.String())
}

func (qualitySchema) Schema(huma.Registry) *huma.Schema {
	return enum("How far a reading may be trusted", citywarden.Good.String(), citywarden.Clamped.String(), citywarden.OutOfRange.String())
}

func (stageSchema) Schema(huma.Registry) *huma.Schema {
	s := enum[citywarden.Stage]("Where a case stands in the workflow (CJJ/T 106)")
	for _, x := range citywarden.Stages {
		s.Enum = append(s.Enum, string(x.Stage))
	}
	return s
}

func (actionSchema) Schema(huma.Registry) *huma.Schema {
	s := enum("What is done to a case", citywarden.Open)
	for _, m := range citywarden.Workflow {
		if !slices.Contains(s.Enum, any(string(m.Action))) {
			s.Enum = append(s.Enum, string(m.Action))
		}
	}
	return s
}

func (alarmStateSchema) Schema(huma.Registry) *huma.Schema {
	return enum("Whether the condition of an alarm still holds", citywarden.AlarmActive, citywarden.AlarmCleared)
}

func (transitionSchema) Schema(huma.Registry) *huma.Schema {
	return enum("What happened to an alarm",
		citywarden.Raised, citywarden.Escalated, citywarden.Lowered, citywarden.Clearing, citywarden.Resumed, citywarden.Latched, citywarden.Cleared,
		citywarden.Joined, citywarden.WentDark, citywarden.CameBack, citywarden.Acked, citywarden.Commented, citywarden.Assigned,
		citywarden.Shelved, citywarden.Unshelved, citywarden.Suppressed, citywarden.Unsuppressed, citywarden.WentOutOfService, citywarden.CameInService)
}

func (statusSchema) Schema(huma.Registry) *huma.Schema {
	return enum("What is known of a device's presence", citywarden.StatusNever, citywarden.StatusOnline, citywarden.StatusSilent)
}

func (roleSchema) Schema(huma.Registry) *huma.Schema {
	return enum("The post that a person holds", citywarden.Roles...)
}

func (lightSchema) Schema(huma.Registry) *huma.Schema {
	return enum("The colour of a deadline: green to 80 % of the time, yellow to 100 %, red above", citywarden.Green, citywarden.Yellow, citywarden.Red)
}

func (domainSchema) Schema(huma.Registry) *huma.Schema {
	return enum("A line of business", citywarden.Parking, citywarden.Fire, citywarden.Pipe, citywarden.Building)
}

func (sourceSchema) Schema(huma.Registry) *huma.Schema {
	return enum("How a case came to be known", citywarden.Sources...)
}

func (requestSchema) Schema(huma.Registry) *huma.Schema {
	return enum("What somebody asks for and somebody else decides on", citywarden.RequestKinds...)
}

func (satisfiedSchema) Schema(huma.Registry) *huma.Schema {
	return enum("What the person who reported a case says of the work", citywarden.Satisfactions...)
}

func (whyNotSchema) Schema(huma.Registry) *huma.Schema {
	return enum("Why there was no alarm, or none that was seen",
		citywarden.WhyNotAlarm, citywarden.WhyNotShelved, citywarden.WhyNotLatched, citywarden.WhyNotShadow, citywarden.WhyNotModel,
		citywarden.WhyNotWhere, citywarden.WhyNotSchedule, citywarden.WhyNotNoData, citywarden.WhyNotUnknown, citywarden.WhyNotCondition,
		citywarden.WhyNotHolding, citywarden.WhyNotInhibited, citywarden.WhyNotLate, citywarden.WhyNotDown, citywarden.WhyNotChanged, citywarden.WhyNotNotLooked)
}

func (attachmentSchema) Schema(huma.Registry) *huma.Schema {
	return enum("What a photo shows", citywarden.AttachmentKinds...)
}

func (progressSchema) Schema(huma.Registry) *huma.Schema {
	return enum("How far a reported case is", citywarden.Progresses...)
}

func (needSchema) Schema(huma.Registry) *huma.Schema {
	return enum("What a person has to say for an action", citywarden.NeedNote, citywarden.NeedDepartment, citywarden.NeedOfficer, citywarden.NeedUntil,
		citywarden.NeedCase, citywarden.NeedSatisfaction, citywarden.NeedPhoto)
}

func (commandSchema) Schema(huma.Registry) *huma.Schema {
	return enum("How far a command has come", citywarden.CommandQueued, citywarden.CommandSent, citywarden.CommandDelivered, citywarden.CommandAnswered, citywarden.CommandTimedOut, citywarden.CommandFailed)
}

func (noticeSchema) Schema(huma.Registry) *huma.Schema {
	return enum("What became of a notice", citywarden.NoticePending, citywarden.NoticeSent, citywarden.NoticeDropped, citywarden.NoticeDead, citywarden.NoticeKept)
}

func (bySchema) Schema(huma.Registry) *huma.Schema {
	return enum("What is evaluated", citywarden.ByArea, citywarden.ByDepartment, citywarden.ByPost)
}

func (betterSchema) Schema(huma.Registry) *huma.Schema {
	return enum("Which way an indicator is better", citywarden.Higher, citywarden.Lower)
}

// shares are the shares of an AlarmLoad, by Priority.
type shares struct {
	Critical citywarden.Share `json:"critical"`
	Major    citywarden.Share `json:"major"`
	Minor    citywarden.Share `json:"minor"`
}

func enum[T ~string](doc string, values ...T) *huma.Schema {
	s := &huma.Schema{Type: "string", Description: doc}
	for _, v := range values {
		s.Enum = append(s.Enum, string(v))
	}
	return s
}

// schemaName is the name of a type; Problem is that of problem details.
func schemaName(t reflect.Type, hint string) string {
	if t == reflect.TypeFor[citywarden.Problem]() {
		return "Mistake"
	}
	return huma.DefaultSchemaNamer(t, hint)
}

// newRegistry returns the schemas of the API.
func newRegistry() huma.Registry {
	r := huma.NewMapRegistry("#/components/schemas/", schemaName)
	for _, a := range [][2]reflect.Type{
		{reflect.TypeFor[citywarden.Value](), reflect.TypeFor[valueSchema]()},
		{reflect.TypeFor[citywarden.Duration](), reflect.TypeFor[durationSchema]()},
		{reflect.TypeFor[citywarden.Severity](), reflect.TypeFor[severitySchema]()},
		{reflect.TypeFor[citywarden.Kind](), reflect.TypeFor[kindSchema]()},
		{reflect.TypeFor[citywarden.Quality](), reflect.TypeFor[qualitySchema]()},
		{reflect.TypeFor[citywarden.Stage](), reflect.TypeFor[stageSchema]()},
		{reflect.TypeFor[citywarden.Action](), reflect.TypeFor[actionSchema]()},
		{reflect.TypeFor[citywarden.AlarmState](), reflect.TypeFor[alarmStateSchema]()},
		{reflect.TypeFor[citywarden.TransitionKind](), reflect.TypeFor[transitionSchema]()},
		{reflect.TypeFor[citywarden.Status](), reflect.TypeFor[statusSchema]()},
		{reflect.TypeFor[citywarden.Role](), reflect.TypeFor[roleSchema]()},
		{reflect.TypeFor[citywarden.Light](), reflect.TypeFor[lightSchema]()},
		{reflect.TypeFor[citywarden.Domain](), reflect.TypeFor[domainSchema]()},
		{reflect.TypeFor[citywarden.Source](), reflect.TypeFor[sourceSchema]()},
		{reflect.TypeFor[citywarden.RequestKind](), reflect.TypeFor[requestSchema]()},
		{reflect.TypeFor[citywarden.Satisfaction](), reflect.TypeFor[satisfiedSchema]()},
		{reflect.TypeFor[citywarden.WhyNotReason](), reflect.TypeFor[whyNotSchema]()},
		{reflect.TypeFor[citywarden.AttachmentKind](), reflect.TypeFor[attachmentSchema]()},
		{reflect.TypeFor[citywarden.Progress](), reflect.TypeFor[progressSchema]()},
		{reflect.TypeFor[citywarden.Need](), reflect.TypeFor[needSchema]()},
		{reflect.TypeFor[citywarden.CommandState](), reflect.TypeFor[commandSchema]()},
		{reflect.TypeFor[citywarden.NoticeState](), reflect.TypeFor[noticeSchema]()},
		{reflect.TypeFor[citywarden.EvaluationBy](), reflect.TypeFor[bySchema]()},
		{reflect.TypeFor[citywarden.Better](), reflect.TypeFor[betterSchema]()},
		{reflect.TypeFor[map[citywarden.Priority]citywarden.Share](), reflect.TypeFor[shares]()},
		{reflect.TypeFor[citywarden.ComponentState](), reflect.TypeFor[componentStateSchema]()},
	} {
		r.RegisterTypeAlias(a[0], a[1])
	}
	return r
}

// neverNull takes null out of the arrays that are left out when they are empty.
func neverNull(schemas map[string]*huma.Schema) {
	for _, s := range schemas {
		for name, p := range s.Properties {
			if p.Type == huma.TypeArray && !slices.Contains(s.Required, name) {
				p.Nullable = false
			}
		}
	}
}

// list is the form of every list: at most a page of items, and the cursor of
// the next page, null when there is none.
type list[T any] struct {
	Items []T     `json:"items" nullable:"false"`
	Next  *string `json:"next" doc:"Give it as after to get the next page; null on the last page"`
}

type listOutput[T any] struct{ Body list[T] }

func listOf[T any](items []T, next string) *listOutput[T] {
	if items == nil {
		items = []T{}
	}
	out := &listOutput[T]{Body: list[T]{Items: items}}
	if next != "" {
		out.Body.Next = &next
	}
	return out
}

type output[T any] struct{ Body T }

func outputOf[T any](v T) *output[T] { return &output[T]{Body: v} }

// created is the answer to a request that made something new.
type created[T any] struct {
	Location string `header:"Location"`
	Body     T
}

// Paging holds the parameters of every list that has pages. Like the path
// parameters it is exported because huma looks into exported fields only.
type Paging struct {
	After string `query:"after" doc:"The next of the page before" maxLength:"500"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" doc:"Items on a page, 100 when left out"`
}

func (p Paging) page() citywarden.Page { return citywarden.Page{After: p.After, Limit: p.Limit} }

// seriesPoint is a point of a series as the API writes it: [time, value].
type seriesPoint citywarden.SeriesPoint

// MarshalJSON writes [RFC 3339 time in UTC, value].
func (p seriesPoint) MarshalJSON() ([]byte, error) {
	return json.Marshal([2]any{p.Time.UTC().Format(time.RFC3339Nano), p.Value})
}

// Schema tells huma what MarshalJSON writes.
func (seriesPoint) Schema(huma.Registry) *huma.Schema {
	two := 2
	return &huma.Schema{
		Type: "array", Description: "[time (RFC 3339), value]", MinItems: &two, MaxItems: &two, Items: &huma.Schema{},
		Extensions: map[string]any{"prefixItems": []*huma.Schema{{Type: "string", Format: "date-time"}, valueSchema{}.Schema(nil)}},
		Examples:   []any{[]any{"2026-11-23T07:00:00Z", 0.31}},
	}
}

// file is an answer that is no JSON of ours. An empty Disposition has browsers show it.
type file struct {
	ContentType string `header:"Content-Type"`
	Disposition string `header:"Content-Disposition"`
	Body        []byte
}
