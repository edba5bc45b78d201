package grafana

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// errNotOurs means that something answered that is not the platform's API.
var errNotOurs = errors.New("the answer is not citywarden's")

// client asks the platform's HTTP API.
type client struct {
	base, token string
	http        *http.Client
}

// open asks for path and returns the answer when its status is 200. Its errors
// carry the code that the platform's status says, and the platform's own words.
func (c *client) open(ctx context.Context, path string, h http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "URL of the datasource: %w", err)
	}
	maps.Copy(req.Header, h)
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, citywarden.Errorf(citywarden.CodeTransient, "%w", err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, refused(res)
	}
	return res, nil
}

// get decodes the JSON at path into out.
func (c *client) get(ctx context.Context, path string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	res, err := c.open(ctx, path, http.Header{"Accept": {"application/json"}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != "application/json" && !strings.HasSuffix(kind, "+json") {
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

// unitOf translates the UCUM unit of a metric into Grafana's unit id; an unknown one
// is shown as a suffix. A state is shown as a share.
func unitOf(m *citywarden.Metric) string {
	if m.Kind == citywarden.KindBool {
		return "percentunit"
	}
	switch m.Unit {
	case "":
		return "short"
	case "%":
		return "percent"
	case "Cel":
		return "celsius"
	case "bar":
		return "pressurebar"
	case "kPa":
		return "pressurekpa"
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
	case "deg":
		return "degree"
	case "s":
		return "s"
	}
	return "suffix: " + strings.NewReplacer("3", "³", "%{LEL}", "%LEL").Replace(m.Unit)
}
