package mail

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/notices"
)

func aNotice() citywarden.Notice {
	return citywarden.Notice{
		Key: "E0501202611230001/0/opened", Receiver: "duty", Kind: citywarden.NoticeOpened, Case: "E0501202611230001", Severity: citywarden.Critical,
		Title: citywarden.Text{ZH: "爆管\r\nBcc: all@city.example"}, Text: citywarden.Text{ZH: "压力低"}, At: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC),
	}
}

// server is an SMTP server (RFC 5321, 3207, 4954) that takes one mail after the
// other.
type server struct {
	net.Listener
	cert     tls.Certificate
	implicit bool   // TLS from the first byte
	startTLS bool   // offers it
	password string // of the user "citywarden"; "" for no sign-in
	refuse   string // an address that it does not know

	mu   sync.Mutex
	log  []string // what the client said, but for the data
	mail []string
}

func newServer(t *testing.T, s *server) *server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, x, x, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	if s.cert.Leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if s.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			all.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		s.Close()
		all.Wait()
	})
	return s
}

// options are those that reach s at "localhost", the name in its certificate.
func (s *server) options(security string) Options {
	roots := x509.NewCertPool()
	roots.AddCert(s.cert.Leaf)
	_, port, _ := net.SplitHostPort(s.Addr().String())
	return Options{Server: "localhost:" + port, Security: security, From: "citywarden@city.example", TLS: &tls.Config{RootCAs: roots, ServerName: "localhost"}}
}

func (s *server) serve(c net.Conn) {
	defer func() { c.Close() }()
	secured := s.implicit
	upgrade := func() { c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{s.cert}}) }
	if s.implicit {
		upgrade()
	}
	r := bufio.NewReader(c)
	say := func(line string) { fmt.Fprintf(c, "%s\r\n", line) }
	say("220 localhost ready")
	signedIn := s.password == ""
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		s.note(&s.log, line)
		verb, rest, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO", "HELO":
			fmt.Fprintf(c, "250-localhost\r\n250-8BITMIME\r\n")
			if s.startTLS && !secured {
				fmt.Fprintf(c, "250-STARTTLS\r\n")
			}
			if s.password != "" && secured {
				fmt.Fprintf(c, "250-AUTH PLAIN\r\n")
			}
			say("250 HELP")
		case "STARTTLS":
			say("220 go ahead")
			upgrade()
			secured, r = true, bufio.NewReader(c)
		case "AUTH":
			b, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			if signedIn = string(b) == "\x00citywarden\x00"+s.password; !signedIn {
				say("535 wrong password")
				continue
			}
			say("235 welcome")
		case "MAIL":
			if !signedIn {
				say("530 sign in first")
				continue
			}
			say("250 ok")
		case "RCPT":
			s.mu.Lock()
			refused := s.refuse != "" && strings.Contains(rest, s.refuse)
			s.mu.Unlock()
			if refused {
				say("550 no such user")
				continue
			}
			say("250 ok")
		case "DATA":
			say("354 go on")
			var b strings.Builder
			for {
				l, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if l == ".\r\n" {
					break
				}
				b.WriteString(strings.TrimPrefix(l, "."))
			}
			s.note(&s.mail, b.String())
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (s *server) note(to *[]string, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*to = append(*to, line)
}

func (s *server) got() (log string, mail []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log, "\n"), s.mail
}

func template(t *testing.T) *notices.Template {
	t.Helper()
	x, err := notices.NewTemplate(notices.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestSend(t *testing.T) {
	for _, c := range []struct {
		name, security string
		server         *server
	}{
		{"starttls", "", &server{startTLS: true, password: "geheim"}},
		{"tls", "tls", &server{implicit: true, password: "geheim"}},
		{"none", "none", &server{}},
	} {
		s := newServer(t, c.server)
		o := s.options(c.security)
		if s.password != "" {
			o.User, o.Password = "citywarden", s.password
		}
		m, err := New(o, []string{"duty@city.example", "chief@city.example"}, template(t))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := m.Send(t.Context(), aNotice()); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		log, mail := s.got()
		if len(mail) != 4 || !strings.Contains(log, "RCPT TO:<duty@city.example>") || !strings.Contains(log, "RCPT TO:<chief@city.example>") || strings.Contains(log, "all@") {
			t.Fatalf("%s: %d mails\n%s", c.name, len(mail), log)
		}
		msg, err := netmail.ReadMessage(strings.NewReader(mail[0]))
		if err != nil {
			t.Fatal(err)
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(msg.Body))
		if err != nil {
			t.Fatal(err)
		}
		if subject != "【紧急】爆管 Bcc: all@city.example" || msg.Header.Get("Bcc") != "" || !strings.HasPrefix(string(body), "新案卷：压力低") ||
			msg.Header.Get("Date") != "Mon, 23 Nov 2026 02:00:00 +0000" || msg.Header.Get("Auto-Submitted") != "auto-generated" || msg.Header.Get("X-Priority") != "1" {
			t.Errorf("%s: %q %v\n%s", c.name, subject, msg.Header, body)
		}
		again, err := netmail.ReadMessage(strings.NewReader(mail[2]))
		if id := msg.Header.Get("Message-Id"); err != nil || len(id) < 20 || again.Header.Get("Message-Id") != id || !strings.HasSuffix(id, "@city.example>") {
			t.Errorf("%s: Message-ID %q, then %q", c.name, id, again.Header.Get("Message-Id"))
		}
	}
}

func TestSendFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		server *server
		change func(*Options)
		says   string
	}{
		{"no STARTTLS", &server{}, func(*Options) {}, "STARTTLS"},
		{"a certificate that nobody vouches for", &server{startTLS: true}, func(o *Options) { o.TLS = nil }, "certificate"},
		{"wrong password", &server{startTLS: true, password: "geheim"}, func(o *Options) { o.User, o.Password = "citywarden", "falsch" }, "535"},
	} {
		s := newServer(t, c.server)
		o := s.options("starttls")
		c.change(&o)
		m, err := New(o, []string{"duty@city.example", "chief@city.example"}, template(t))
		if err != nil {
			t.Fatal(err)
		}
		err = m.Send(t.Context(), aNotice())
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "falsch") {
			t.Errorf("%s: %v, want %s", c.name, err, c.says)
		}
		if _, mail := s.got(); len(mail) != 0 {
			t.Errorf("%s: %d mails were taken", c.name, len(mail))
		}
		s.Close()
		if err := m.Send(t.Context(), aNotice()); err == nil {
			t.Errorf("%s: nobody listens, and nothing is wrong", c.name)
		}
	}
}

// A mailbox that is gone does not keep the others from knowing, nor do they get
// the mail again with every try.
func TestOneOfTheAddressesIsRefused(t *testing.T) {
	s := newServer(t, &server{startTLS: true, refuse: "chief@"})
	m, err := New(s.options("starttls"), []string{"chief@city.example", "duty@city.example"}, template(t))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := m.Send(t.Context(), aNotice()); err == nil || !strings.Contains(err.Error(), "550") {
			t.Errorf("refused: %v", err)
		}
	}
	if _, mail := s.got(); len(mail) != 1 || !strings.Contains(mail[0], "To: <duty@city.example>") {
		t.Errorf("%d mails: %s", len(mail), mail)
	}
	s.mu.Lock()
	s.refuse = ""
	s.mu.Unlock()
	if err := m.Send(t.Context(), aNotice()); err != nil {
		t.Error(err)
	}
	if _, mail := s.got(); len(mail) != 2 || !strings.Contains(mail[1], "To: <chief@city.example>") || len(m.taken) != 0 {
		t.Errorf("%d mails: %s, remembered %v", len(mail), mail, m.taken)
	}
}

func TestCheck(t *testing.T) {
	good := Options{Server: "mail.example:587", From: "citywarden@city.example"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for says, change := range map[string]func(*Options){
		"write host:port":           func(o *Options) { o.Server = "mail.example" },
		"no mail address":           func(o *Options) { o.From = "citywarden" },
		"starttls, tls or none":     func(o *Options) { o.Security = "ssl" },
		"would cross the network":   func(o *Options) { o.Security, o.User = "none", "x" },
		"like mail.example:587":     func(o *Options) { o.Server = "mail.example:smtp" },
		"is no address; write host": func(o *Options) { o.Server = "" },
	} {
		o := good
		change(&o)
		if err := o.Check(); citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q, got %v", says, err)
		}
	}
	if _, err := New(good, []string{"duty"}, nil); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("an address that is none: %v", err)
	}
}
