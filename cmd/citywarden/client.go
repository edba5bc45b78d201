package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// remote says which platform a command speaks to and as whom.
type remote struct {
	Server   string `help:"Address of the platform." default:"http://127.0.0.1:8080" env:"CITYWARDEN_SERVER" placeholder:"URL"`
	Token    string `help:"Token to sign in with, instead of a user and password." env:"CITYWARDEN_TOKEN"`
	User     string `help:"User to sign in as." default:"admin" env:"CITYWARDEN_USER"`
	Password string `help:"Password of the user; better said by the environment." env:"CITYWARDEN_PASSWORD"`
	JSON     bool   `help:"Print the API's JSON instead of text."`
}

// client signs in and returns what makes calls.
func (r *remote) client(ctx context.Context) (*client, error) {
	if u, err := url.Parse(r.Server); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, &usageError{fmt.Sprintf("%q is no address of a platform; write it like http://127.0.0.1:8080", r.Server)}
	}
	c := &client{base: strings.TrimRight(r.Server, "/") + "/api/v1", token: r.Token, http: &http.Client{Timeout: time.Minute}}
	if c.token != "" {
		return c, nil
	}
	if r.Password == "" {
		return nil, &usageError{"say who you are: set CITYWARDEN_PASSWORD (and CITYWARDEN_USER, default admin), or CITYWARDEN_TOKEN"}
	}
	var in struct{ Token string }
	err := c.call(ctx, "POST", "/login", map[string]string{"user": r.User, "password": r.Password}, &in)
	if err != nil {
		return nil, fmt.Errorf("sign in as %s: %w", r.User, err)
	}
	c.token = in.Token
	return c, nil
}

// client makes calls to the HTTP API.
type client struct {
	base, token string
	http        *http.Client
	county      *time.Location // once zone has asked for it
}

// problem is an RFC 9457 error of the API.
type problem struct {
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

// call sends body as JSON (or as it is, when it is an io.Reader) and decodes the
// answer into out, which may be nil, an io.Writer for the bare bytes, or a pointer.
func (c *client) call(ctx context.Context, method, path string, body, out any) error {
	var r io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r, kind = b, "text/csv"
	case form:
		r, kind = b.body()
	default:
		j, err := json.Marshal(b)
		if err != nil {
			return err
		}
		r = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, r)
	if err != nil {
		return &usageError{fmt.Sprintf("--server: %v", err)}
	}
	req.Header.Set("Content-Type", kind)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w; is the platform running, and is --server right?", err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return answered(res)
	}
	switch o := out.(type) {
	case nil:
		return nil
	case io.Writer:
		_, err = io.Copy(o, res.Body)
	default:
		err = json.NewDecoder(res.Body).Decode(o)
	}
	if err != nil {
		return fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	return nil
}

// form is a form with one file.
type form struct {
	fields url.Values
	name   string // of the file
	file   []byte
}

// body returns the form as it is sent, and its content type.
func (f form) body() (io.Reader, string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b) // a buffer takes all
	for name, values := range f.fields {
		_ = w.WriteField(name, values[0])
	}
	h := textproto.MIMEHeader{}
	h.Set("Content-Disposition", mime.FormatMediaType("form-data", map[string]string{"name": "file", "filename": f.name}))
	h.Set("Content-Type", http.DetectContentType(f.file))
	part, _ := w.CreatePart(h)
	_, _ = part.Write(f.file)
	_ = w.Close()
	return &b, w.FormDataContentType()
}

// inRequest is how the API says which part of a request is wrong. Who wrote a
// command line knows only the last name.
var inRequest = regexp.MustCompile(`\b(?:body|query|path)\.(\w+): expected `)

func answered(res *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	var p problem
	if json.Unmarshal(b, &p) != nil || p.Detail == "" && p.Title == "" {
		return fmt.Errorf("the platform answered %s: %.200s", res.Status, b)
	}
	msg := p.Detail
	if msg == "" {
		msg = p.Title
	}
	msg = inRequest.ReplaceAllString(msg, "$1: expected ")
	code := citywarden.CodeInternal
	switch res.StatusCode {
	case http.StatusConflict:
		code = citywarden.CodeConflict
	case http.StatusNotFound:
		code = citywarden.CodeNotFound
	case http.StatusForbidden:
		code = citywarden.CodeDenied
	}
	return citywarden.Errorf(code, "%s", msg)
}

// list fetches every page of a list and calls f with each item.
func list[T any](ctx context.Context, c *client, path string, q url.Values, f func(T) error) error {
	for {
		var page struct {
			Items []T     `json:"items"`
			Next  *string `json:"next"`
		}
		if err := c.call(ctx, "GET", path+"?"+q.Encode(), nil, &page); err != nil {
			return err
		}
		for _, it := range page.Items {
			if err := f(it); err != nil {
				return err
			}
		}
		if page.Next == nil || *page.Next == "" {
			return nil
		}
		q.Set("after", *page.Next)
	}
}

// printList prints every item of a list: as JSON when r asks for it, else as a
// table with a row for each.
func printList[T any](ctx context.Context, o output, r *remote, path string, q url.Values, heading []string, row func(stamp, T) []string) error {
	c, err := r.client(ctx)
	if err != nil {
		return err
	}
	items := []T{}
	err = list(ctx, c, path, q, func(it T) error {
		items = append(items, it)
		return nil
	})
	if err != nil {
		return err
	}
	if r.JSON {
		return toJSON(o.out, items)
	}
	at, err := c.stamp(ctx)
	if err != nil {
		return err
	}
	rows := [][]string{heading}
	for _, it := range items {
		rows = append(rows, row(at, it))
	}
	table(o.out, rows)
	return nil
}

// table prints rows in columns, the first row as the heading.
func table(w io.Writer, rows [][]string) {
	var width []int
	for _, r := range rows {
		for i, cell := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], cells(cell))
		}
	}
	for _, r := range rows {
		var line strings.Builder
		for i, cell := range r {
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", width[i]-cells(cell)+2))
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// cells is how many columns of a terminal s takes: Chinese takes two each.
func cells(s string) int {
	n := 0
	for _, r := range s {
		if n++; r >= 0x1100 {
			n++
		}
	}
	return n
}

// counted is n with its noun: "1 rule", "2 rules".
func counted[N int | int64 | uint64](n N, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprint(n, " ", noun)
}

func toJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
