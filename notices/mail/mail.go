// Package mail sends notices as mail by SMTP.
//
//	m, err := mail.New(mail.Options{Server: "mail.example:587", From: "citywarden@city.example", User: "citywarden", Password: "…"}, []string{"duty@city.example"}, template)
//	err = m.Send(ctx, notice)
package mail

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	netmail "net/mail"
	"slices"
	"strconv"
	"strings"
	"sync"

	gomail "github.com/wneessen/go-mail"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/notices"
)

// Options are the server that takes the mail.
type Options struct {
	Server   string      // host:port
	Security string      // "starttls", "tls" from the first byte, or "none"; "" means starttls
	User     string      // "" for no sign-in
	Password string      // never sent without TLS
	From     string      // address of the sender
	TLS      *tls.Config // nil for the certificates that the machine trusts
}

// Check returns a CodeInvalid error that says what is wrong.
func (o *Options) Check() error {
	if _, err := o.options(); err != nil {
		return err
	}
	if _, err := netmail.ParseAddress(o.From); err != nil {
		return citywarden.Errorf(citywarden.CodeInvalid, "from %q is no mail address; write it like citywarden@city.example", o.From)
	}
	return nil
}

func (o *Options) options() ([]gomail.Option, error) {
	_, port, err := net.SplitHostPort(o.Server)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "server %q is no address; write host:port, like mail.example:587", o.Server)
	}
	out := []gomail.Option{gomail.WithPort(n), gomail.WithoutNoop()}
	if o.TLS != nil {
		out = append(out, gomail.WithTLSConfig(o.TLS))
	}
	switch o.Security {
	case "", "starttls":
		out = append(out, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case "tls":
		out = append(out, gomail.WithSSL())
	case "none":
		out = append(out, gomail.WithTLSPolicy(gomail.NoTLS))
		if o.User != "" {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "the password of %s would cross the network in the clear; use starttls or tls", o.User)
		}
	default:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "security %q is not known; it is starttls, tls or none", o.Security)
	}
	if o.User != "" {
		out = append(out, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(o.User), gomail.WithPassword(o.Password))
	}
	return out, nil
}

// Mail sends notices to some addresses. It may be used by several goroutines.
type Mail struct {
	options  Options
	to       []string
	template *notices.Template

	mu    sync.Mutex
	taken map[string][]string // addresses that a notice went to, by its key, when the server refused others
}

// New returns what sends mail to the addresses; CodeInvalid says what is wrong.
func New(o Options, to []string, t *notices.Template) (*Mail, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	for _, a := range to {
		if _, err := netmail.ParseAddress(a); err != nil {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "%q is no mail address", a)
		}
	}
	return &Mail{options: o, to: to, template: t, taken: map[string][]string{}}, nil
}

// maxTaken is how many notices that some address refused are remembered.
const maxTaken = 1000

// Send sends n and returns nil when the server has taken it for every address.
// Each gets a mail of its own, and no second one when Send is called again: a
// mailbox that is gone does not keep others from knowing. The same notice has the
// same Message-ID, so that mailboxes know it again.
func (m *Mail) Send(ctx context.Context, n citywarden.Notice) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	title, text, err := m.template.Write(n)
	if err != nil {
		return err
	}
	var msgs []*gomail.Msg
	var to []string
	for _, a := range m.to {
		if slices.Contains(m.taken[n.Key], a) {
			continue
		}
		msg, err := m.message(n, a, title, text)
		if err != nil {
			return fmt.Errorf("mail notice %s: %w", n.Key, err)
		}
		msgs, to = append(msgs, msg), append(to, a)
	}
	o, err := m.options.options()
	if err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(m.options.Server) // checked by New
	c, err := gomail.NewClient(host, o...)
	if err != nil {
		return fmt.Errorf("mail notice %s: %w", n.Key, err)
	}
	err = c.DialAndSendWithContext(ctx, msgs...)
	taken := m.taken[n.Key]
	for i, msg := range msgs {
		if msg.IsDelivered() {
			taken = append(taken, to[i])
		}
	}
	if len(taken) == len(m.to) { // what the server says after that is not about the mail
		delete(m.taken, n.Key)
		return nil
	}
	if len(m.taken) >= maxTaken {
		clear(m.taken)
	}
	m.taken[n.Key] = taken
	return fmt.Errorf("mail notice by %s: %w", m.options.Server, err)
}

// message returns the mail to one address.
func (m *Mail) message(n citywarden.Notice, to, title, text string) (*gomail.Msg, error) {
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := msg.From(m.options.From); err != nil {
		return nil, err
	}
	if err := msg.To(to); err != nil {
		return nil, err
	}
	msg.Subject(title)
	msg.SetDateWithValue(n.At)
	msg.SetMessageIDWithValue(m.messageID(n))
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody's absence note comes back
	if n.Severity >= citywarden.Critical {
		msg.SetGenHeader("X-Priority", "1")
	}
	msg.SetBodyString(gomail.TypeTextPlain, text)
	return msg, nil
}

func (m *Mail) messageID(n citywarden.Notice) string {
	h := sha256.Sum256([]byte(n.Key + "@" + n.Receiver))
	_, domain, _ := strings.Cut(m.options.From, "@")
	return hex.EncodeToString(h[:16]) + "@" + strings.Trim(domain, "<> ")
}
