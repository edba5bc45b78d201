package citywarden

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxFirmware is how large a firmware may be, in bytes.
const MaxFirmware = 16 << 20

// Firmware is a package that devices of a model can load. Title and version
// together name it.
type Firmware struct {
	Title    string           `json:"title"`
	Version  string           `json:"version"`
	Model    ModelName        `json:"model"`
	Size     int64            `json:"size"`
	Checksum string           `json:"checksum"` // SHA-256 in hex
	By       string           `json:"by"`
	Created  time.Time        `json:"created"`
	Targets  []FirmwareTarget `json:"targets,omitempty"` // who is to have it
}

// FirmwareScope says what a FirmwareTarget names.
type FirmwareScope string

// The scopes; for a device the first that names a firmware of its model counts.
const (
	FirmwareDevice FirmwareScope = "device"
	FirmwareSite   FirmwareScope = "site" // all devices there
	FirmwareModel  FirmwareScope = "model"
)

// FirmwareTarget says who is to have a firmware.
type FirmwareTarget struct {
	Scope FirmwareScope `json:"scope"`
	Name  string        `json:"name"` // the id of a device or site, or a model
}

// Check returns a CodeInvalid error unless title, version and size can be.
func (f *Firmware) Check() error {
	for _, x := range []struct{ what, text string }{{"title", f.Title}, {"version", f.Version}} {
		if err := CheckText(x.what, x.text, 64); err != nil {
			return err
		}
		if strings.TrimSpace(x.text) == "" || strings.ContainsAny(x.text, "/?#&%") {
			return Errorf(CodeInvalid, "%s %q of a firmware: write 1 to 64 characters without / ? # & and %%", x.what, x.text)
		}
	}
	if f.Size < 1 || f.Size > MaxFirmware {
		return Errorf(CodeInvalid, "a firmware of %d bytes; it has 1 to %d", f.Size, MaxFirmware)
	}
	return nil
}

// String names f for people.
func (f *Firmware) String() string { return fmt.Sprintf("%s %s", f.Title, f.Version) }

// FirmwareAttributes are what a device says of its firmware, by ThingsBoard's
// names, in its telemetry. They are kept as client attributes.
var FirmwareAttributes = [...]string{"fw_state", "fw_error", "current_fw_title", "current_fw_version", "target_fw_title", "target_fw_version"}

// Chunk returns the part of a firmware that a device asks for: chunk n of that
// size, both as it wrote them, empty after the last one; all of it for "". CodeInvalid when they are no
// numbers.
func Chunk(file []byte, size, chunk string) ([]byte, error) {
	if size == "" || size == "0" {
		return file, nil
	}
	bytes, err := strconv.ParseUint(size, 10, 31)
	n, nerr := strconv.ParseUint(cmp.Or(chunk, "0"), 10, 31)
	if err != nil || nerr != nil {
		return nil, Errorf(CodeInvalid, "size %q, chunk %q: the number of bytes of a chunk, and which it is, beginning with 0", size, chunk)
	}
	from := min(n*bytes, uint64(len(file)))
	return file[from:min(from+bytes, uint64(len(file)))], nil
}
