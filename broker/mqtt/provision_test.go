package mqtt

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
)

// office is a journal that gives credentials away while it is open.
type office struct {
	*journal
	closed bool
	given  atomic.Int32
}

func (o *office) Provision(context.Context, citywarden.Asker, []byte) []byte {
	o.given.Add(1)
	return []byte(`{"status":"SUCCESS"}`)
}

func (o *office) Provisioning() []citywarden.Provisioning {
	if o.closed {
		return nil
	}
	return []citywarden.Provisioning{{Model: "smoke-detector"}}
}

// Who comes for a credential keeps nobody else out, however many come.
func TestGuests(t *testing.T) {
	o := &office{journal: newJournal()}
	addr, book, _ := serveTCP(t, o)
	var guests []*peer
	for range maxGuests {
		p := dial(t, addr, 5)
		if ack := p.connect("", citywarden.ProvisionUser); ack.ReasonCode != 0 {
			t.Fatalf("guest %d: %#x %s", len(guests), ack.ReasonCode, ack.Properties.ReasonString)
		}
		guests = append(guests, p)
	}
	for version, code := range map[byte]byte{4: 3, 5: packets.ErrServerBusy.Code} {
		p := dial(t, addr, version)
		if ack := p.connect("", citywarden.ProvisionUser); ack.ReasonCode != code {
			t.Errorf("one more, version %d: %#x", version, ack.ReasonCode)
		}
		p.closed()
	}
	book.mustSay(t, "128 devices ask for a credential already")
	dial(t, addr, 4).login("x", "a").ping()
	_ = guests[0].conn.Close()
	eventually(t, func() error {
		if ack := dial(t, addr, 5).connect("", citywarden.ProvisionUser); ack.ReasonCode != 0 {
			return errors.New("the place of one that left is not free")
		}
		return nil
	})
}

func TestGuestsOfNoModel(t *testing.T) {
	addr, book, _ := serveTCP(t, &office{journal: newJournal(), closed: true})
	p := dial(t, addr, 5)
	if ack := p.connect("", citywarden.ProvisionUser); ack.ReasonCode != packets.ErrNotAuthorized.Code {
		t.Errorf("%#x", ack.ReasonCode)
	}
	p.closed()
	book.mustSay(t, "connection refused")
}

// A credential is given once: nobody gets it who would not hear the answer.
func TestGuestThatDoesNotListen(t *testing.T) {
	o := &office{journal: newJournal()}
	addr, _, _ := serveTCP(t, o)
	p := dial(t, addr, 5)
	p.connect("", citywarden.ProvisionUser)
	p.publish(citywarden.ProvisionRequest, "{}", 1, 1)
	if ack := p.read(packets.Puback); ack.ReasonCode < 0x80 || !strings.Contains(ack.Properties.ReasonString, "subscribe to /provision/response first") || o.given.Load() > 0 {
		t.Errorf("%#x %s, %d given", ack.ReasonCode, ack.Properties.ReasonString, o.given.Load())
	}
	p.subscribe(citywarden.ProvisionResponse)
	p.publish(citywarden.ProvisionRequest, "{}", 0, 0)
	p.read(packets.Publish)
	if o.given.Load() != 1 {
		t.Errorf("%d given", o.given.Load())
	}
}
