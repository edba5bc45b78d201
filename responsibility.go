package citywarden

import "time"

// ResponsibilityGrid is ground that one grid officer looks after (责任网格): unit
// grids, or all of an area.
type ResponsibilityGrid struct {
	ID      ResponsibilityGridID `json:"id"`
	Name    string               `json:"name,omitempty"`
	Officer string               `json:"officer,omitempty"`      // user name; "" while nobody does
	Grids   []GridCode           `json:"grids" nullable:"false"` // codes of unit grids, or of areas with all unit grids in them, like 350623100001
	Updated time.Time            `json:"updated,omitzero"`
}

// ResponsibilityGridID names a responsibility grid: 1 to 64 printable characters, no slash.
type ResponsibilityGridID string

// Check returns a CodeInvalid error unless id has the form that ResponsibilityGridID states.
func (id ResponsibilityGridID) Check() error {
	if !plainName(string(id)) {
		return Errorf(CodeInvalid, "responsibility grid id %q: use 1 to 64 printable characters without a slash", id)
	}
	return nil
}

// TableReport says what became of each line of a table, or each feature of a
// GeoJSON file, that was imported.
type TableReport struct {
	Added   int         `json:"added"`
	Changed int         `json:"changed"`
	Same    int         `json:"same"`
	Removed int         `json:"removed"` // that were there and are not in the table
	Failed  int         `json:"failed"`
	Lines   []TableLine `json:"lines" nullable:"false"` // those that failed, or are warned of
}

// TableLine is what is wrong with one line.
type TableLine struct {
	Line    int    `json:"line"` // as an editor counts, from 1; of GeoJSON the number of the feature
	ID      string `json:"id"`
	Error   string `json:"error,omitempty"`
	Warning string `json:"warning,omitempty"` // taken, but perhaps not what was meant
}

// Fail notes that a line was not taken.
func (r *TableReport) Fail(line int, id string, err error) {
	r.Failed++
	r.Lines = append(r.Lines, TableLine{Line: line, ID: id, Error: err.Error()})
}

// Warn notes that a line was taken, but perhaps is not what was meant.
func (r *TableReport) Warn(line int, id, text string) {
	r.Lines = append(r.Lines, TableLine{Line: line, ID: id, Warning: text})
}
