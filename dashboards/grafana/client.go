package grafana

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/citywarden/citywarden"
)

// errNotOurs means that something answered that is not the platform's API.
var errNotOurs = errors.New("the answer is not citywarden's")

// client asks the platform's HTTP API.
type client struct {
	base, token string
	http        *http.Client
}

// get decodes the JSON at path into out. Its errors carry the code that the
// platform's status says, and the platform's own words.
func (c *client) get(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return citywarden.Errorf(citywarden.CodeInvalid, "URL of the datasource: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return citywarden.Errorf(citywarden.CodeTransient, "%w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return refused(res)
	}
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		return fmt.Errorf("%s: %w", path, errNotOurs)
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("%s: %w: %w", path, errNotOurs, err)
	}
	return nil
}

func refused(res *http.Response) error {
	var p struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	_ = json.Unmarshal(b, &p)
	if p.Detail == "" {
		p.Detail = p.Title
	}
	if p.Detail == "" {
		p.Detail = res.Status
	}
	code := citywarden.CodeInternal
	switch res.StatusCode {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		code = citywarden.CodeInvalid
	case http.StatusUnauthorized:
		code = citywarden.CodeUnauthenticated
	case http.StatusForbidden:
		code = citywarden.CodeDenied
	case http.StatusNotFound:
		code = citywarden.CodeNotFound
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		code = citywarden.CodeTransient
	}
	return citywarden.Errorf(code, "%s", p.Detail)
}

// maxRows bounds what one query reads of a list.
const maxRows = 20000

// all calls f with every item of a list, page by page, at most maxRows.
func all[T any](ctx context.Context, c *client, path string, q url.Values, f func(T)) error {
	q.Set("limit", fmt.Sprint(citywarden.MaxPage))
	for n := 0; n < maxRows; {
		var page struct {
			Items []T     `json:"items"`
			Next  *string `json:"next"`
		}
		if err := c.get(ctx, path+"?"+q.Encode(), &page); err != nil {
			return err
		}
		for _, it := range page.Items {
			f(it)
		}
		if n += len(page.Items); page.Next == nil || *page.Next == "" || len(page.Items) == 0 {
			return nil
		}
		q.Set("after", *page.Next)
	}
	return nil
}

// unitOf translates a UCUM unit into Grafana's unit id; an unknown one is shown
// as a suffix.
func unitOf(ucum string) string {
	switch ucum {
	case "":
		return ""
	case "%":
		return "percent"
	case "Cel":
		return "celsius"
	case "bar":
		return "pressurebar"
	case "kW":
		return "kwatt"
	case "W":
		return "watt"
	case "kW.h":
		return "kwatth"
	case "V":
		return "volt"
	case "A":
		return "amp"
	case "m":
		return "lengthm"
	case "mm":
		return "lengthmm"
	case "m3":
		return "m3"
	case "s":
		return "s"
	}
	return "suffix: " + strings.ReplaceAll(ucum, "3", "³")
}
