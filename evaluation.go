package citywarden

import "time"

// WorkKind is a kind of work on cases that an evaluation counts.
type WorkKind string

// The kinds of work, in the order of a case that goes well.
const (
	WorkReport     WorkKind = "report"      // 上报: by the officer who reported it, or who answers for the unit grid
	WorkAccept     WorkKind = "accept"      // 受理
	WorkSendVerify WorkKind = "send_verify" // 发核实
	WorkVerify     WorkKind = "verify"      // 核实
	WorkFile       WorkKind = "file"        // 立案
	WorkDispatch   WorkKind = "dispatch"    // 派遣
	WorkHandle     WorkKind = "handle"      // 处置
	WorkSendCheck  WorkKind = "send_check"  // 发核查
	WorkCheck      WorkKind = "check"       // 核查
	WorkClose      WorkKind = "close"       // 结案
)

// WorkMark says how good a piece of work was, and what it was about; they are
// summed up.
type WorkMark int32

// The marks.
const (
	MarkLate      WorkMark = 1 << iota // done after its limit, and no appeal took that back
	MarkOfficer                        // of a report: an officer's
	MarkPublic                         // of a report: citizens'
	MarkSensor                         // of a report: an alarm's
	MarkValid                          // of a report: accepted
	MarkFiled                          // of a report: filed
	MarkOpen                           // of a report: people still have something to do with its case
	MarkVoided                         // of a filing: the case was voided later
	MarkWrong                          // of a dispatch: the case went on to another department
	MarkReworked                       // of a dispatch, a handling, a closing: the case came back because it was not done
	MarkExtended                       // the department got more time
	MarkSuspended                      // the limit does not run now
	MarkTardy                          // of a closing: the shift leader took longer than the stage allows
)

// CaseWork is one piece of work on a case: what somebody did, or has to do.
type CaseWork struct {
	Kind       WorkKind
	Person     string // who did it, or has to; "" for nobody in particular
	Department string
	Grid       GridCode
	Began      time.Time // when it could be begun
	Due        time.Time // zero for no limit
	Done       time.Time // zero for not yet
	Marks      WorkMark
}

// WorkStates are states of work, summed up.
type WorkStates int

// The states of work at the end of a period.
const (
	WorkDone    WorkStates = 1 << iota // within the period
	WorkOverdue                        // not done, and the limit has passed
	WorkPending                        // not done, and there is time
)

// WorkKey is what work is counted by.
type WorkKey string

// The keys.
const (
	WorkByVillage    WorkKey = "village" // the first 12 digits of the unit grid
	WorkByGrid       WorkKey = "grid"
	WorkByDepartment WorkKey = "department"
	WorkByPerson     WorkKey = "person"
)

// WorkFilter selects work on cases.
type WorkFilter struct {
	Kind   WorkKind
	From   time.Time // done work: from then
	To     time.Time // until then, exclusively; what was done later was not done yet
	States WorkStates
	Need   WorkMark // has all of these
	Not    WorkMark // and none of these

	Area AreaCode // only on cases there

	By  WorkKey
	Key *string // has that key, of an area: begins with it; nil for every one
}

// WorkCount says how many pieces of work of one kind are alike.
type WorkCount struct {
	Key   string
	Marks WorkMark
	State WorkStates // one
	N     int
}

// EvaluationBy is what is evaluated (区域评价, 部门评价, 岗位评价).
type EvaluationBy string

// What can be evaluated.
const (
	ByArea       EvaluationBy = "area"
	ByDepartment EvaluationBy = "department"
	ByPost       EvaluationBy = "post"
)

// LevelGrid is the level of the unit grids themselves.
const LevelGrid Level = "grid"

// EvaluationQuery asks for an evaluation.
type EvaluationQuery struct {
	From  time.Time
	To    time.Time // exclusive
	By    EvaluationBy
	Level Level    // of the areas; "" for towns
	Under string   // only in the area of that code; "" for everywhere
	Only  string   // only of that department; "" for all
	Area  AreaCode // only on cases there
}

// Part is a part of the cases behind a figure.
type Part string

// The parts.
const (
	PartNumerator   Part = "numerator"
	PartDenominator Part = "denominator"
	PartRest        Part = "rest" // of the denominator, without the numerator
)

// Evaluation is what the work on cases of a period was worth (GB/T 30428.4).
type Evaluation struct {
	From       time.Time       `json:"from"`
	To         time.Time       `json:"to"`
	AsOf       time.Time       `json:"as_of"` // work that was not done by then counts as not done: to, or the time of asking
	By         EvaluationBy    `json:"by"`
	Level      Level           `json:"level,omitempty"`
	Under      string          `json:"under,omitempty"`
	Indicators []Indicator     `json:"indicators" nullable:"false"`
	Scores     []ScoreRule     `json:"scores" nullable:"false"`
	Volume     []VolumeStep    `json:"volume" nullable:"false"`
	Grades     []GradeRule     `json:"grades" nullable:"false"`
	Rows       []EvaluationRow `json:"rows" nullable:"false"`
	Total      *EvaluationRow  `json:"total,omitempty"` // of all rows; none by post, where each post has its own
}

// Indicator is a figure of an evaluation: a share of cases, or, without a
// denominator, how many there are.
type Indicator struct {
	Code        string       `json:"code"`
	Name        Text         `json:"name"`
	Numerator   Text         `json:"numerator"`
	Denominator *Denominator `json:"denominator,omitempty"`
	Better      Better       `json:"better,omitempty"`
	Clause      string       `json:"clause"` // of the standard, or whose formula it is
}

// Denominator is what a share is a share of.
type Denominator struct {
	Code    string   `json:"code"`
	Name    Text     `json:"name"`
	Choices []string `json:"choices" nullable:"false"` // codes of all that the configuration may name
}

// Better says which way an indicator is better.
type Better string

// The directions.
const (
	Higher Better = "higher"
	Lower  Better = "lower"
)

// ScoreRule is how a composite score is made: the shares, turned so that more is
// better, by their weights. A share of no cases takes no part.
type ScoreRule struct {
	Of    string      `json:"of"` // area, department, or a post
	Name  Text        `json:"name"`
	Parts []ScorePart `json:"parts" nullable:"false"`
}

// ScorePart is the weight of an indicator in a score.
type ScorePart struct {
	Indicator string  `json:"indicator"`
	Weight    float64 `json:"weight"` // per cent
}

// VolumeStep says what a count of cases is worth in a score.
type VolumeStep struct {
	From  int     `json:"from" yaml:"from"`   // so many cases or more
	Score float64 `json:"score" yaml:"score"` // 0 to 100
}

// GradeRule is a grade and the lowest score that has it.
type GradeRule struct {
	Grade string  `json:"grade"`
	From  float64 `json:"from"`
}

// EvaluationRow is the evaluation of one area, department, post or person.
type EvaluationRow struct {
	Key     string   `json:"key"`
	Name    Text     `json:"name"`
	Post    string   `json:"post,omitempty"`
	Person  string   `json:"person,omitempty"` // "" for all of the post
	Figures []Figure `json:"figures" nullable:"false"`
	Score   *float64 `json:"score,omitempty"` // 0 to 100; none when there are no cases to tell by
	Grade   string   `json:"grade,omitempty"`
}

// Figure is the value of an indicator.
type Figure struct {
	Indicator string   `json:"indicator"`
	Cases     int      `json:"cases"`          // of the numerator
	Of        int      `json:"of"`             // of the denominator; 0 for a mere count
	Rate      *float64 `json:"rate,omitempty"` // 0 to 1; none when the denominator has no cases
}

// Figure returns the figure of an indicator, a zero one when the row has none.
func (r *EvaluationRow) Figure(code string) Figure {
	for _, f := range r.Figures {
		if f.Indicator == code {
			return f
		}
	}
	return Figure{}
}
