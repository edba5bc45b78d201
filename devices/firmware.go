package devices

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// FirmwareStore keeps firmware; store.DB is one. Every method is one transaction.
type FirmwareStore interface {
	LoadFirmware(context.Context) ([]citywarden.Firmware, error)
	FirmwareFile(ctx context.Context, title, version string) ([]byte, error)
	AddFirmware(ctx context.Context, f citywarden.Firmware, file []byte) error
	DeleteFirmware(ctx context.Context, title, version string) error
	SetFirmware(ctx context.Context, t citywarden.FirmwareTarget, title, version string) error
}

const (
	maxFirmware = 1000     // packages
	maxImages   = 64 << 20 // bytes of files held in memory, while devices load them
)

// Firmware is the packages that devices can load, and who is to have which. A
// device is told by its shared attributes fw_title, fw_version, fw_size, fw_checksum
// and fw_checksum_algorithm. Several goroutines may use it.
type Firmware struct {
	store    FirmwareStore
	registry *Registry

	changing sync.Mutex // held while the store writes
	mu       sync.RWMutex
	packages []citywarden.Firmware // by title and version
	targets  map[citywarden.FirmwareTarget]*citywarden.Firmware

	loading sync.Mutex // held while the store reads a file, so that many devices have it read once
	images  []image    // what was asked for last is the last
}

// image is the file of a firmware.
type image struct {
	title, version string
	file           []byte
}

// NewFirmware returns the firmware of the store, and has the devices of r told of
// theirs from then on.
func NewFirmware(ctx context.Context, s FirmwareStore, r *Registry) (*Firmware, error) {
	all, err := s.LoadFirmware(ctx)
	if err != nil {
		return nil, err
	}
	f := &Firmware{store: s, registry: r}
	f.hold(all)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.firmware = f
	return f, nil
}

// hold makes all what there is. It needs mu, unless nobody knows f.
func (f *Firmware) hold(all []citywarden.Firmware) {
	slices.SortFunc(all, func(a, b citywarden.Firmware) int {
		return strings.Compare(a.Title+"\x00"+a.Version, b.Title+"\x00"+b.Version)
	})
	f.packages, f.targets = all, map[citywarden.FirmwareTarget]*citywarden.Firmware{}
	for i := range all {
		for _, t := range all[i].Targets {
			f.targets[t] = &all[i]
		}
	}
}

// List returns all firmware in the order of title and version.
func (f *Firmware) List() []citywarden.Firmware {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return slices.Clone(f.packages)
}

// of returns what d is to have, nil for nothing.
func (f *Firmware) of(d *citywarden.Device) *citywarden.Firmware {
	if f == nil {
		return nil
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, t := range []citywarden.FirmwareTarget{{Scope: citywarden.FirmwareDevice, Name: string(d.ID)}, {Scope: citywarden.FirmwareSite, Name: string(d.Site())}, {Scope: citywarden.FirmwareModel, Name: string(d.Model)}} {
		if x := f.targets[t]; x != nil && x.Model == d.Model {
			return x
		}
	}
	return nil
}

// attributesOf adds what a device is told of x to out.
func attributesOf(x *citywarden.Firmware, out map[string]any) map[string]any {
	if x == nil {
		return out
	}
	if out == nil {
		out = map[string]any{}
	}
	out["fw_title"], out["fw_version"], out["fw_size"] = x.Title, x.Version, float64(x.Size)
	out["fw_checksum"], out["fw_checksum_algorithm"] = x.Checksum, "SHA256"
	return out
}

// Add keeps a package; its size, checksum and time are set here. CodeConflict when
// there is one of that title and version.
func (f *Firmware) Add(ctx context.Context, x citywarden.Firmware, file []byte) (citywarden.Firmware, error) {
	sum := sha256.Sum256(file)
	x.Size, x.Checksum, x.Created, x.Targets = int64(len(file)), hex.EncodeToString(sum[:]), time.Now().UTC().Truncate(time.Millisecond), nil
	if err := x.Check(); err != nil {
		return x, err
	}
	if _, ok := f.registry.models.Model(x.Model); !ok {
		return x, citywarden.Errorf(citywarden.CodeInvalid, "unknown model %q%s", x.Model, suggest(string(x.Model), f.registry.models.names))
	}
	f.changing.Lock()
	defer f.changing.Unlock()
	all := f.List()
	switch {
	case find(all, x.Title, x.Version) >= 0:
		return x, citywarden.Errorf(citywarden.CodeConflict, "there is a firmware %s; a changed file is a new version", &x)
	case len(all) >= maxFirmware:
		return x, citywarden.Errorf(citywarden.CodeConflict, "there are %d firmware packages; delete some", maxFirmware)
	}
	if err := f.store.AddFirmware(ctx, x, file); err != nil {
		return x, fmt.Errorf("save firmware %s: %w", &x, err)
	}
	f.change(append(all, x))
	return x, nil
}

func find(all []citywarden.Firmware, title, version string) int {
	return slices.IndexFunc(all, func(x citywarden.Firmware) bool { return x.Title == title && x.Version == version })
}

// Delete removes a package, or returns CodeNotFound. Who was to have it is told
// that it is gone; what devices have loaded stays with them.
func (f *Firmware) Delete(ctx context.Context, title, version string) error {
	f.changing.Lock()
	defer f.changing.Unlock()
	all := f.List()
	i := find(all, title, version)
	if i < 0 {
		return noFirmware(title, version)
	}
	if err := f.store.DeleteFirmware(ctx, title, version); err != nil {
		return fmt.Errorf("delete firmware %s: %w", &all[i], err)
	}
	f.change(slices.Delete(all, i, i+1))
	f.loading.Lock()
	defer f.loading.Unlock()
	f.images = slices.DeleteFunc(f.images, func(m image) bool { return m.title == title && m.version == version })
	return nil
}

func noFirmware(title, version string) error {
	return citywarden.Errorf(citywarden.CodeNotFound, "no firmware %s %s", title, version)
}

// Assign gives a target a package in place of the one before, "" takes it away.
// Devices that it changes for are told. CodeInvalid when a device, or the model, is not that
// of the package.
func (f *Firmware) Assign(ctx context.Context, t citywarden.FirmwareTarget, title, version string) error {
	f.changing.Lock()
	defer f.changing.Unlock()
	all := f.List()
	i := find(all, title, version)
	if i < 0 && title+version != "" {
		return noFirmware(title, version)
	}
	if err := f.checkTarget(t, all, i); err != nil {
		return err
	}
	if err := f.store.SetFirmware(ctx, t, title, version); err != nil {
		return fmt.Errorf("assign firmware %s %s to %s %s: %w", title, version, t.Scope, t.Name, err)
	}
	for k := range all {
		all[k].Targets = slices.DeleteFunc(slices.Clone(all[k].Targets), func(o citywarden.FirmwareTarget) bool { return o == t })
	}
	if i >= 0 {
		all[i].Targets = append(all[i].Targets, t)
	}
	f.change(all)
	return nil
}

func (f *Firmware) checkTarget(t citywarden.FirmwareTarget, all []citywarden.Firmware, i int) error {
	model := citywarden.ModelName(t.Name)
	switch t.Scope {
	case citywarden.FirmwareDevice:
		d, _, err := f.registry.Device(citywarden.DeviceID(t.Name))
		if err != nil {
			return err
		}
		model = d.Model
	case citywarden.FirmwareSite:
		if _, err := f.registry.Site(citywarden.SiteID(t.Name)); err != nil {
			return err
		}
		return nil // of its devices, those of the model
	case citywarden.FirmwareModel:
	default:
		return citywarden.Errorf(citywarden.CodeInvalid, "scope %q: it is device, site or model", t.Scope)
	}
	if i >= 0 && model != all[i].Model {
		return citywarden.Errorf(citywarden.CodeInvalid, "firmware %s is for %s, %s %s is not", &all[i], all[i].Model, t.Scope, t.Name)
	}
	return nil
}

// change makes all what there is, and tells the devices for which that is
// something else.
func (f *Firmware) change(all []citywarden.Firmware) {
	f.registry.telling.Lock()
	defer f.registry.telling.Unlock()
	before := map[citywarden.DeviceID]*citywarden.Firmware{}
	f.registry.Each(func(d *citywarden.Device, _ *citywarden.Model) {
		if x := f.of(d); x != nil {
			before[d.ID] = x
		}
	})
	f.mu.Lock()
	f.hold(all)
	f.mu.Unlock()
	f.registry.Each(func(d *citywarden.Device, _ *citywarden.Model) {
		m := changes(attributesOf(before[d.ID], nil), attributesOf(f.of(d), nil))
		m.Device = d.ID
		f.registry.tell(m)
	})
}

// Image returns the file that a device is to have; nobody changes it. CodeNotFound when
// that is none, or title and version, unless they are "", are others.
func (f *Firmware) Image(ctx context.Context, id citywarden.DeviceID, title, version string) ([]byte, error) {
	d, _, err := f.registry.Device(id)
	if err != nil {
		return nil, err
	}
	x := f.of(d)
	if x == nil || title != "" && title != x.Title || version != "" && version != x.Version {
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "device %s is not to load firmware %s %s; fw_title and fw_version of its shared attributes say which", id, title, version)
	}
	f.loading.Lock()
	defer f.loading.Unlock()
	held := 0
	for i, m := range f.images {
		if m.title == x.Title && m.version == x.Version {
			f.images = append(slices.Delete(f.images, i, i+1), m)
			return m.file, nil
		}
		held += len(m.file)
	}
	file, err := f.store.FirmwareFile(ctx, x.Title, x.Version)
	if err != nil {
		return nil, fmt.Errorf("read firmware %s: %w", x, err)
	}
	for held += len(file); held > maxImages && len(f.images) > 0; f.images = slices.Delete(f.images, 0, 1) {
		held -= len(f.images[0].file)
	}
	f.images = append(f.images, image{x.Title, x.Version, file})
	return file, nil
}

// changes returns what to tell a device whose attributes changed; its Body is nil
// when that is nothing.
func changes(before, after map[string]any) citywarden.Downlink {
	m := citywarden.Downlink{Kind: citywarden.DownlinkAttributes}
	body := map[string]any{}
	for k, v := range after {
		if before[k] != v {
			body[k] = v
		}
	}
	var deleted []string
	for k := range before {
		if _, still := after[k]; !still {
			deleted = append(deleted, k)
		}
	}
	if slices.Sort(deleted); len(deleted) > 0 {
		body["deleted"] = deleted
	}
	if len(body) > 0 {
		m.Body, _ = json.Marshal(body) // texts, finite numbers and bools
	}
	return m
}
