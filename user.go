package citywarden

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Role says which post a person holds; it decides what they may do.
type Role string

// The roles. One person holds one role; an admin may do everything, alone, and
// the timeline says that an admin did it.
const (
	RoleAdmin       Role = "admin"
	RoleSupervisor  Role = "supervisor"   // the supervision centre in one person: acceptor and shift leader
	RoleAcceptor    Role = "acceptor"     // 受理员: registers, sends to verify and to check, calls back
	RoleShiftLeader Role = "shift_leader" // 值班长: files, voids and closes
	RoleDispatcher  Role = "dispatcher"   // 派遣员: the command centre
	RoleDepartment  Role = "department"   // 专业部门处置人员
	RoleOfficer     Role = "officer"      // 网格监督员
	RoleEngineer    Role = "engineer"     // writes alarm rules
	RoleVendor      Role = "vendor"       // connects devices
	RoleViewer      Role = "viewer"       // looks
	RoleService     Role = "service"      // another program that reads, like Grafana
	RoleCitizen     Role = "citizen"      // 市民: reports, and sees what became of it
)

// Roles are all roles.
var Roles = []Role{RoleAdmin, RoleSupervisor, RoleAcceptor, RoleShiftLeader, RoleDispatcher, RoleDepartment, RoleOfficer,
	RoleEngineer, RoleVendor, RoleViewer, RoleService, RoleCitizen}

// Permission is a kind of thing that a role may or may not do. What may be done
// to a case stands in Workflow instead.
type Permission string

// The permissions.
const (
	MayRead          Permission = "read"
	MayOperateAlarms Permission = "operate alarms" // acknowledge, shelve, reset, comment, assign
	MayOutOfService  Permission = "take alarms out of service"
	MayOpenCases     Permission = "open cases"
	MayReadCases     Permission = "read cases" // a citizen their own only
	MayWriteDevices  Permission = "write devices"
	MayTellDevices   Permission = "tell devices what to do"
	MayClaimDevices  Permission = "claim devices" // in their own area
	MayWriteSites    Permission = "write sites"
	MayWriteGrids    Permission = "write unit grids"
	MayWriteRules    Permission = "write rules"
	MayWriteUsers    Permission = "write users"
	MayBackup        Permission = "make backups"
	MaySeeReporters  Permission = "see who reported a case"
	MayEvaluate      Permission = "see evaluations" // a department its own only

	MayWriteComponents Permission = "write components"
)

var permissions = map[Permission][]Role{
	MayRead:          slices.DeleteFunc(slices.Clone(Roles), func(r Role) bool { return r == RoleCitizen }),
	MayReadCases:     Roles,
	MayOperateAlarms: {RoleAdmin, RoleSupervisor, RoleAcceptor, RoleShiftLeader, RoleDispatcher, RoleOfficer},
	// A shelf ends by itself; nothing reminds of what is out of service. So it is
	// for those who answer for the shift or for the rules.
	MayOutOfService: {RoleAdmin, RoleSupervisor, RoleShiftLeader, RoleEngineer},
	MayOpenCases:    {RoleAdmin, RoleSupervisor, RoleAcceptor, RoleShiftLeader, RoleOfficer, RoleCitizen},
	MaySeeReporters: {RoleAdmin, RoleSupervisor, RoleAcceptor, RoleOfficer}, // who verify and call back
	// People are graded there: for those who lead, and for departments themselves.
	MayEvaluate:     {RoleAdmin, RoleSupervisor, RoleAcceptor, RoleShiftLeader, RoleDispatcher, RoleDepartment, RoleViewer, RoleService},
	MayWriteDevices: {RoleAdmin, RoleVendor},
	// Who mounts a device, or sends people to mount it.
	MayClaimDevices: {RoleAdmin, RoleSupervisor, RoleDepartment, RoleOfficer, RoleVendor},
	// A vendor tries what it connects.
	MayTellDevices: {RoleAdmin, RoleSupervisor, RoleShiftLeader, RoleDispatcher, RoleVendor},
	MayWriteSites:  {RoleAdmin, RoleEngineer}, // thresholds of rules stand there
	MayWriteGrids:  {RoleAdmin},
	MayWriteRules:  {RoleAdmin, RoleEngineer},
	MayWriteUsers:  {RoleAdmin},
	MayBackup:      {RoleAdmin}, // everything is in one

	MayWriteComponents: {RoleAdmin, RoleSupervisor}, // the supervision centre surveys them
}

// May returns a CodeDenied error unless the role may do p.
func (r Role) May(p Permission) error {
	if slices.Contains(permissions[p], r) {
		return nil
	}
	return Errorf(CodeDenied, "%s may not %s; %s may", orNobody(string(r)), p, joinRoles(permissions[p]))
}

func joinRoles(rs []Role) string {
	names := make([]string, len(rs))
	for i, r := range rs {
		names[i] = string(r)
	}
	return strings.Join(names, " or ")
}

func orNobody(s string) string {
	if s == "" {
		return "nobody"
	}
	return s
}

// User is a person who signs in, or a program with a token of its own.
type User struct {
	Name       string    `json:"name"`
	Title      string    `json:"title,omitempty"` // how people call them: 值班长 林敏
	Role       Role      `json:"role"`
	Department string    `json:"department,omitempty"` // of RoleDepartment
	Area       AreaCode  `json:"area,omitempty"`       // the county, town or village that they are confined to; "" for nothing
	Disabled   bool      `json:"disabled,omitempty"`   // can't sign in, and no token of theirs is taken
	Created    time.Time `json:"created"`
}

// Check returns a CodeInvalid error when role, department and area of u don't
// go together.
func (u *User) Check() error {
	switch {
	case !slices.Contains(Roles, u.Role):
		return Errorf(CodeInvalid, "user %s: unknown role %q", u.Name, u.Role)
	case (u.Role == RoleDepartment) != (u.Department != ""):
		return Errorf(CodeInvalid, "user %s: a user with the role department, and no other, names the department", u.Name)
	case u.Area != "" && slices.Contains(everywhere, u.Role):
		return Errorf(CodeInvalid, "user %s: what %s does holds everywhere; leave the area out", u.Name, u.Role)
	}
	if err := u.Area.Check(); err != nil {
		return fmt.Errorf("user %s: %w", u.Name, err)
	}
	return nil
}

// everywhere are the roles that can't be confined to an area: devices, rules,
// grids and users are the whole county's, and a citizen sees their own reports.
var everywhere = []Role{RoleAdmin, RoleEngineer, RoleVendor, RoleCitizen}

// Session is a sign-in of a person, or a token of a program.
type Session struct {
	ID      string    `json:"id"` // SHA-256 of the secret in hex; the secret itself is kept nowhere
	User    string    `json:"user"`
	Label   string    `json:"label,omitempty"` // what a program's token is for; "" for a sign-in
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
}

// AuditEntry says who asked for which change, when, from where, and what came
// of it.
type AuditEntry struct {
	ID      int64     `json:"id"`
	At      time.Time `json:"at"`
	User    string    `json:"user"` // of a failed sign-in: the name that was claimed
	Role    Role      `json:"role,omitempty"`
	Address string    `json:"address"`          // IP address of the caller
	Action  string    `json:"action"`           // operation of the API: "create-device"
	Target  string    `json:"target"`           // path of the request
	Detail  string    `json:"detail,omitempty"` // body of the request, without secrets, cut at 2000 bytes
	Status  int       `json:"status"`           // HTTP status of the answer; 0 when the platform stopped before it

	Before json.RawMessage `json:"before,omitempty"` // what it was done to, before and after; without secrets and who reported
	After  json.RawMessage `json:"after,omitempty"`
}

// AuditFilter selects audit entries; zero fields select all.
type AuditFilter struct {
	User    string
	Action  string
	Target  string    // path of the request, or how it begins when it ends in "*"
	Address string    // IP address of the caller
	From    time.Time // inclusive
	To      time.Time // exclusive
	Page
}
