package mqtt

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
)

// desk is a journal that notes which devices may be claimed; "wrong" is a mistake, "busy" passes.
type desk struct {
	*journal
	said []string
}

func (d *desk) Announce(_ context.Context, device citywarden.DeviceID, body []byte) error {
	switch string(body) {
	case "wrong":
		return citywarden.Errorf(citywarden.CodeInvalid, "that is no claim")
	case "busy":
		return citywarden.Errorf(citywarden.CodeTransient, "too often")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said = append(d.said, fmt.Sprintf("%s %s", device, body))
	return nil
}

func (d *desk) AnnounceBehind(ctx context.Context, gateway citywarden.DeviceID, body []byte) error {
	return d.Announce(ctx, "behind "+gateway, body)
}

// TestClaim: what a device says of being claimed goes to who keeps it, not to the log. MQTT 5 is
// told of a mistake; MQTT 3.1.1, which can't be, does not come back with it for ever.
func TestClaim(t *testing.T) {
	d := &desk{journal: newJournal()}
	addr, book, _ := serveTCP(t, d)
	for version, refused := range map[byte]byte{4: 0, 5: packets.ErrPayloadFormatInvalid.Code} {
		p := dial(t, addr, version).login("x", "a")
		for i, c := range []struct {
			topic, body string
			code        byte
		}{{citywarden.DeviceClaim, "mine", 0}, {citywarden.GatewayClaim, "theirs", 0}, {citywarden.DeviceClaim, "wrong", refused}, {citywarden.GatewayClaim, "wrong", refused}} {
			p.publish(c.topic, c.body, 1, uint16(i+1))
			if ack := p.read(packets.Puback); ack.PacketID != uint16(i+1) || ack.ReasonCode != c.code {
				t.Errorf("version %d: %s %s is answered %#x %s", version, c.topic, c.body, ack.ReasonCode, ack.Properties.ReasonString)
			}
		}
		p.publish(citywarden.DeviceClaim, "busy", 1, 9)
		p.closed() // it was not kept: to be sent again
	}
	want := []string{"a mine", "behind a theirs", "a mine", "behind a theirs"}
	if diff := cmp.Diff(want, d.said); diff != "" || len(d.taken) > 0 {
		t.Errorf("%d in the log\n%s", len(d.taken), diff)
	}
	book.mustSay(t, "claim not taken")
}
