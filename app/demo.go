package app

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/app/demo"
	"github.com/citywarden/citywarden/dashboards/api"
	"github.com/citywarden/citywarden/simulators"
	"github.com/citywarden/citywarden/simulators/county"
)

// demoState is what a demo remembers from one start to the next, in demo.json.
type demoState struct {
	Secret      []byte    `json:"secret"`       // the devices' tokens and the posts' password come from it
	Start       time.Time `json:"start"`        // when the simulated world began
	OwnPassword bool      `json:"own_password"` // the admin's password was given from outside
}

const demoFile = "demo.json"

// openDemo reads the demo's state, or begins a demo in a folder that has held
// no platform before: a demo must never seed a county that is in use.
func openDemo(dir string, ownPassword bool) (*demoState, error) {
	path := filepath.Join(dir, demoFile)
	b, err := os.ReadFile(path)
	if err == nil {
		var s demoState
		if err := json.Unmarshal(b, &s); err != nil || len(s.Secret) == 0 {
			return nil, fmt.Errorf("%s is damaged (%v); delete the folder to begin the demo anew", path, err)
		}
		return &s, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("demo: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "citywarden.db")); err == nil {
		return nil, citywarden.Errorf(citywarden.CodeConflict, "%s holds a platform that is no demo; name another folder with --data", dir)
	}
	s := &demoState{Secret: make([]byte, 32), Start: time.Now().UTC().Truncate(time.Second), OwnPassword: ownPassword}
	if _, err := rand.Read(s.Secret); err != nil {
		return nil, err
	}
	if b, err = json.Marshal(s); err != nil {
		return nil, err
	}
	return s, os.WriteFile(path, b, 0o600)
}

// derive returns n characters that belong to name and can't be guessed without
// the secret.
func (s *demoState) derive(name string, n int) string {
	h := hmac.New(sha256.New, s.Secret)
	h.Write([]byte(name))
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)))[:n]
}

func (s *demoState) password() string                    { return s.derive("password", 12) }
func (s *demoState) token(id citywarden.DeviceID) string { return s.derive("device "+string(id), 20) }

// Posts returns the people of the demo county: one for each post of the workflow
// and each department that its cases go to, and who connects devices and writes rules.
func Posts() []citywarden.User {
	return []citywarden.User{
		{Name: "zhiban", Title: "监督中心 林敏", Role: citywarden.RoleSupervisor},
		{Name: "shouli", Title: "受理员 苏梅", Role: citywarden.RoleAcceptor},
		{Name: "banzhang", Title: "值班长 郭立", Role: citywarden.RoleShiftLeader},
		{Name: "paiqian", Title: "派遣员 陈立", Role: citywarden.RoleDispatcher},
		{Name: "xiaofang", Title: "消防 吴强", Role: citywarden.RoleDepartment, Department: "消防救援大队"},
		{Name: "gongshui", Title: "供水抢修 黄辉", Role: citywarden.RoleDepartment, Department: "供水公司"},
		{Name: "chengguan", Title: "城管 许静", Role: citywarden.RoleDepartment, Department: "城管执法大队"},
		{Name: "gongdian", Title: "供电抢修 李涛", Role: citywarden.RoleDepartment, Department: "供电公司"},
		{Name: "shizheng", Title: "市政养护 方敏", Role: citywarden.RoleDepartment, Department: "市政公用中心"},
		{Name: "wangge", Title: "网格员 张萍", Role: citywarden.RoleOfficer},
		{Name: "wangge2", Title: "网格员 郑海", Role: citywarden.RoleOfficer},
		{Name: "guize", Title: "规则工程师 何涛", Role: citywarden.RoleEngineer},
		{Name: "changshang", Title: "设备厂商 叶明", Role: citywarden.RoleVendor},
	}
}

// rounds are the responsibility grids of the demo's officers: the communities to
// both sides of Zhongshan Road.
func rounds() []citywarden.ResponsibilityGrid {
	const town = county.Code + county.Town
	return []citywarden.ResponsibilityGrid{
		{ID: "绥安-北", Name: "中山路以北", Officer: "wangge", Grids: []citywarden.GridCode{town + "001", town + "002", town + "003"}},
		{ID: "绥安-南", Name: "中山路以南", Officer: "wangge2", Grids: []citywarden.GridCode{town + "004", town + "005", town + "006"}},
	}
}

// seedRules writes the demo's rules into dir unless there is something already.
func seedRules(dir string) error {
	have, err := os.ReadDir(dir)
	if err != nil || len(have) > 0 {
		return err
	}
	files, err := demo.Rules()
	if err != nil {
		return err
	}
	return os.CopyFS(dir, files)
}

// seed puts the county's grids, their officers, components, map layers and devices into the platform, each
// only if it is not there yet, so that a demo that was killed while it seeded
// goes on.
func (b *building) seed(ctx context.Context, c *county.County) error {
	if len(b.grids.All()) == 0 {
		if err := b.grids.Add(ctx, c.Grids); err != nil {
			return fmt.Errorf("unit grids: %w", err)
		}
	}
	if len(b.officers.All()) == 0 {
		for _, g := range rounds() {
			if _, err := b.officers.Save(ctx, g); err != nil {
				return err
			}
		}
	}
	if _, err := b.components.Component(c.Components[0].ID); err != nil {
		if err := b.components.SaveAll(ctx, slices.Clone(c.Components)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(b.path("map"), 0o700); err != nil {
		return err
	}
	for name, layer := range c.Layers() {
		path := b.path("map", name+".geojson")
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := os.WriteFile(path, layer, 0o600); err != nil {
			return err
		}
	}
	for _, d := range c.Devices {
		if _, _, err := b.devices.Device(d.ID); err == nil {
			continue
		}
		if _, err := b.devices.Create(ctx, d); err != nil {
			return fmt.Errorf("device %s: %w", d.ID, err)
		}
		if err := b.devices.SetToken(ctx, d.ID, b.demoState.token(d.ID)); err != nil {
			return fmt.Errorf("device %s: %w", d.ID, err)
		}
	}
	return nil
}

// seedUsers makes the posts of the demo, and the key "demo" for apps.
func (b *building) seedUsers(ctx context.Context) error {
	for _, u := range Posts() {
		_, err := b.people.Create(ctx, u, b.demoState.password())
		if err != nil && citywarden.CodeOf(err) != citywarden.CodeConflict {
			return fmt.Errorf("user %s: %w", u.Name, err)
		}
	}
	err := b.db.AddAPIKey(ctx, api.NewAPIKey("demo", "demo", "", 0))
	if err != nil && citywarden.CodeOf(err) != citywarden.CodeConflict {
		return err
	}
	return nil
}

// demo seeds the demo county and adds its devices as the last part: they know
// the platform only by its sockets.
func (b *building) demo(ctx context.Context) error {
	if !b.config.Demo {
		return nil
	}
	c := county.Demo()
	if err := b.seed(ctx, c); err != nil {
		return fmt.Errorf("seed the demo county: %w", err)
	}
	f := simulators.NewFleet(simulators.Options{
		County: c, MQTT: local(b.MQTTAddr()), CoAP: local(b.CoAPAddr()), Token: b.demoState.token,
		Seed: 350623, Start: b.demoState.Start, Logger: b.component("simulators"),
	})
	b.parts = append(b.parts, part{"simulators", f.Run})
	return nil
}

// local returns how a listener is reached from this machine, "" for none.
func local(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
