package mqtt

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker"
)

// Messages to devices don't take mochi's way: each has one receiver, and mochi
// stalls a publisher for a subscriber that doesn't read. They wait in a queue of
// the connection, of which one goroutine sends one after the other; one with
// QoS 1 waits for its PUBACK.

// maxDown is how many messages wait for a device. One that does not take them is
// disconnected; it asks again when it comes back.
const maxDown = 64

// maxUnacknowledged is how long a message with QoS 1 waits for its PUBACK. A device that has not sent it by then,
// though it is connected, is disconnected; it is told again when it comes back. TCP itself gives up after about as long.
const maxUnacknowledged = 10 * time.Minute

// aroundPayload is how many bytes a PUBLISH has beside its topic and payload, at most: two lengths, the packet identifier
// and that of the subscription.
const aroundPayload = 16

// maxCommands is how many messages wait for a device when no command is added to them any more:
// those of all devices behind a gateway are more than maxDown, and wait where they are, see nextCommands.
const maxCommands = maxDown / 2

// maxNames is how many devices of a gateway are remembered by the name that it
// gave them.
const maxNames = 4096

// downlink is a message to the device, and who wants to know whether it has it.
type downlink struct {
	packets.Packet
	done func(error) // see citywarden.Downlink.Done; nil for nobody
}

// subscription is what a device subscribed to.
type subscription struct {
	qos    byte
	id     int    // of MQTT 5, which comes with what it delivers; 0 for none
	cancel func() // nil when nothing comes by itself
}

// subscribe notes a granted subscription.
func (c *conn) subscribe(filter string, qos byte, id int) {
	c.unsubscribe(filter)
	c.mu.Lock()
	if c.down == nil {
		c.down, c.more = make(chan downlink, maxDown), make(chan struct{}, 1)
		c.listener.wg.Go(c.sendDown) // the reader that we are in is in wg itself
	}
	if c.subs == nil {
		c.subs = map[string]subscription{}
	}
	c.subs[filter] = subscription{qos: qos, id: id}
	c.mu.Unlock()
	var kind citywarden.DownlinkKind
	switch long(filter) {
	case attributesTopic, citywarden.GatewayAttributes:
		kind = citywarden.DownlinkAttributes
	case rpcFilter, gatewayRPC:
		kind = citywarden.DownlinkCommand
	default:
		switch broker.ParseNodeTopic(filter).What {
		case broker.NCMD, broker.DCMD:
			kind = citywarden.DownlinkCommand
		case broker.STATE:
			c.deliverAs(packets.FixedHeader{Retain: true}, filter, broker.SparkplugHost, c.listener.broker.state(true), nil)
			return
		default:
			return
		}
	}
	cancel := c.listener.broker.opts.Down.Listen(c.device, kind, func(m citywarden.Downlink) bool { return c.tell(filter, m, false) })
	c.mu.Lock()
	c.subs[filter] = subscription{qos, id, cancel}
	if filter == citywarden.GatewayAttributes {
		for id := range c.names { // that it connected before
			c.addReminder(id)
		}
	}
	c.mu.Unlock()
}

// addReminder has the gateway reminded of a device, see remind, when nothing else waits for it: there may be
// more of them than down has room for. It needs mu.
func (c *conn) addReminder(id citywarden.DeviceID) {
	if len(c.reminders) >= maxNames {
		return // it is reminded when it connects the device again
	}
	if c.reminders == nil {
		c.reminders = map[citywarden.DeviceID]struct{}{}
	}
	c.reminders[id] = struct{}{}
	signal(c.more)
}

// waiting is a device of which commands wait, and the subscription with which the connection gets them.
type waiting struct {
	filter string
	device citywarden.DeviceID
}

// mayTake reports whether a command of w is to be queued now. When there is no room it waits in the
// platform, and those that follow it too, until nextCommands asks for them again.
func (c *conn) mayTake(w waiting, again bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, behind := c.commands[w]; len(c.down) < maxCommands && (again || !behind) {
		return true
	}
	if c.commands == nil {
		c.commands = map[waiting]bool{}
	}
	c.commands[w] = true
	signal(c.more)
	return false
}

// nextCommands queues the commands of one device for which there was no room, and reports whether
// there was such a device.
func (c *conn) nextCommands() bool {
	c.mu.Lock()
	var w waiting
	for w = range c.commands {
		break
	}
	if w.device == "" {
		c.mu.Unlock()
		return false
	}
	c.commands[w] = false // none had to wait since
	c.mu.Unlock()
	down := c.listener.broker.opts.Down
	if w.device == c.device || c.isBehind(w.device) {
		down.Listen(w.device, citywarden.DownlinkCommand, func(m citywarden.Downlink) bool {
			return m.Device == w.device && c.tell(w.filter, m, true)
		})()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.commands[w] {
		delete(c.commands, w)
	}
	return true
}

// isBehind reports whether the device is behind this gateway, and not behind another now.
func (c *conn) isBehind(id citywarden.DeviceID) bool {
	child, err := c.listener.broker.opts.Down.Child(c.device, string(id))
	return err == nil && child == id
}

// nextReminder queues one reminder, if its device needs one, and reports whether there was one.
func (c *conn) nextReminder() bool {
	c.mu.Lock()
	var id citywarden.DeviceID
	for id = range c.reminders {
		break
	}
	if delete(c.reminders, id); len(c.reminders) == 0 {
		c.reminders = nil
	}
	c.mu.Unlock()
	if id == "" {
		return false
	}
	c.remind(id)
	return true
}

// remind has the gateway told what is desired of a device behind it that it has not taken over:
// whoever begins to listen is.
func (c *conn) remind(id citywarden.DeviceID) {
	if !c.isBehind(id) {
		return
	}
	c.listener.broker.opts.Down.Listen(id, citywarden.DownlinkAttributes, func(m citywarden.Downlink) bool {
		return m.Device == id && c.tell(citywarden.GatewayAttributes, m, false)
	})()
}

func (c *conn) subscribed(filter string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.subs[filter]
	return ok
}

func (c *conn) unsubscribe(filter string) {
	c.mu.Lock()
	s := c.subs[filter]
	delete(c.subs, filter)
	c.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
	}
}

func (c *conn) unsubscribeAll() {
	c.mu.Lock()
	subs := c.subs
	c.subs = nil
	c.mu.Unlock()
	for _, s := range subs {
		if s.cancel != nil {
			s.cancel()
		}
	}
}

// tell passes on a message of the platform to who subscribed to filter: a device's
// own to itself, that of a device behind a gateway to the gateway; again when it is asked for those that had to wait.
func (c *conn) tell(filter string, m citywarden.Downlink, again bool) bool {
	if strings.HasPrefix(filter, broker.SparkplugSpace) {
		return c.tellNode(filter, m, again)
	}
	own := m.Device == c.device
	if own != (long(filter) == attributesTopic || long(filter) == rpcFilter) {
		return false
	}
	topic, body := filter, m.Body
	if m.Kind == citywarden.DownlinkCommand {
		if !c.mayTake(waiting{filter, m.Device}, again) {
			return false
		}
		if own {
			topic = strings.TrimSuffix(filter, "+") + strconv.FormatInt(m.ID, 10)
		} else {
			body = m.WithID()
		}
	}
	if m.Kind == citywarden.DownlinkAttributes && c.mergeChange(waiting{filter, m.Device}, body) {
		return true
	}
	if !own {
		body = ofDevice(c.name(m.Device), body)
	}
	return c.deliver(filter, topic, body, m.Done)
}

// ofDevice returns what a gateway is told of a device behind it, which it calls name.
func ofDevice(name string, data json.RawMessage) []byte {
	body, _ := json.Marshal(struct { // a string and JSON: no error
		Device string          `json:"device"`
		Data   json.RawMessage `json:"data"`
	}{name, data})
	return body
}

// mergeChange keeps changed attributes of a device until there is room in down, together with those of it
// that wait already: the last value counts. It reports whether it does; else there is room, or nobody to be told.
func (c *conn) mergeChange(w waiting, body json.RawMessage) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.subs[w.filter]; !ok || c.deaf {
		return false
	}
	values, behind := c.changes[w]
	if !behind && (len(c.down) < maxCommands || len(c.changes) >= maxNames) {
		return false
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(body, &m) != nil {
		return false
	}
	if values == nil {
		values = map[string]json.RawMessage{}
	}
	var deleted []string
	if json.Unmarshal(m["deleted"], &deleted) == nil {
		delete(m, "deleted")
	}
	maps.Copy(values, m)
	for _, name := range deleted {
		values[name] = nil
	}
	if c.changes == nil {
		c.changes = map[waiting]map[string]json.RawMessage{}
	}
	c.changes[w] = values
	signal(c.more)
	return true
}

// nextChange queues the changed attributes of one device for which there was no room, and reports whether
// there was such a device. Until they are queued they stay where they are: what changes meanwhile goes to them,
// and not past them.
func (c *conn) nextChange() bool {
	c.mu.Lock()
	var w waiting
	for w = range c.changes {
		break
	}
	c.mu.Unlock()
	if w.device == "" {
		return false
	}
	behind := w.device == c.device || c.isBehind(w.device)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !behind { // it is behind another gateway now
		delete(c.changes, w)
		return true
	}
	b := c.takeChanges(w)
	c.queueDown(packets.FixedHeader{}, w.filter, w.filter, b, nil)
	return true
}

// takeChanges takes what is to be told of the changed attributes of a device; of more than the device takes in one packet
// a part. It needs mu.
func (c *conn) takeChanges(w waiting) []byte {
	values := c.changes[w]
	most := int(c.client.Properties.Props.MaximumPacketSize)
	names := slices.Sorted(maps.Keys(values))
	for {
		body := map[string]any{}
		var deleted []string
		for _, name := range names {
			if values[name] == nil {
				deleted = append(deleted, name)
				continue
			}
			body[name] = values[name]
		}
		if len(deleted) > 0 {
			body["deleted"] = deleted
		}
		b, _ := json.Marshal(body) // JSON and texts: no error
		if w.device != c.device {
			b = ofDevice(c.called(w.device), b)
		}
		if most > 0 && len(names) > 1 && aroundPayload+len(w.filter)+len(b) > most {
			names = names[:len(names)/2]
			continue
		}
		for _, name := range names {
			delete(values, name)
		}
		if len(values) == 0 {
			delete(c.changes, w)
		}
		return b
	}
}

// deliver queues a message for the device and reports whether it is to be sent:
// the device must have subscribed to filter.
func (c *conn) deliver(filter, topic string, body []byte, done func(error)) bool {
	return c.deliverAs(packets.FixedHeader{}, filter, topic, body, done)
}

// deliverAs is deliver with the flags of h.
func (c *conn) deliverAs(h packets.FixedHeader, filter, topic string, body []byte, done func(error)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queueDown(h, filter, topic, body, done)
}

// queueDown is deliverAs; it needs mu.
func (c *conn) queueDown(h packets.FixedHeader, filter, topic string, body []byte, done func(error)) bool {
	s, ok := c.subs[filter]
	if !ok || c.deaf {
		return false
	}
	h.Type, h.Qos = packets.Publish, s.qos
	m := downlink{packets.Packet{FixedHeader: h, TopicName: topic, Payload: body}, done}
	if s.id > 0 {
		m.Properties.SubscriptionIdentifier = []int{s.id} // [MQTT-3.3.4-3]
	}
	select {
	case c.down <- m:
		return true
	default:
	}
	c.giveUp(fmt.Sprintf("%d messages wait", maxDown))
	return false
}

// giveUp disconnects a device that does not take what is sent to it, as why says. It needs mu.
func (c *conn) giveUp(why string) {
	c.deaf = true
	c.explained.Store(true)
	c.warn("device disconnected", "err", "it does not take what is sent to it; "+why)
	_ = c.socket.Close() // which ends the reader; Close waits for a write
}

// sendDown sends what is queued until the connection is gone; then it says of the
// rest that the device does not have it.
func (c *conn) sendDown() {
	for c.sendNext() {
	}
	c.mu.Lock()
	c.deaf = true
	c.mu.Unlock()
	for {
		select {
		case m := <-c.down:
			m.settle(errGone)
		default:
			return
		}
	}
}

// sendNext sends one message and reports whether the connection goes on.
func (c *conn) sendNext() bool {
	var m downlink
	select {
	case m = <-c.down:
	default:
		if c.nextCommands() || c.nextChange() || c.nextReminder() {
			return true
		}
		select {
		case m = <-c.down:
		case <-c.more:
			return true
		case <-c.gone:
			return false
		}
	}
	if m.FixedHeader.Qos > 0 {
		if c.lastID++; c.lastID == 0 {
			c.lastID = 1
		}
		m.PacketID = c.lastID
	}
	if err := c.client.WritePacket(m.Packet); err != nil {
		if !errors.Is(err, packets.ErrPacketTooLarge) {
			m.settle(errGone)
			return false
		}
		err = citywarden.Errorf(citywarden.CodeTooLarge, "the message of more than %d bytes is larger than the %d bytes that the device takes of a packet, as its CONNECT says",
			len(m.TopicName)+len(m.Payload), c.client.Properties.Props.MaximumPacketSize)
		m.settle(err)
		if c.warnOnce("packet size") {
			c.warn("message not sent", "topic", m.TopicName, "err", err)
		}
		return true
	}
	if m.FixedHeader.Qos == 0 {
		m.settle(nil)
		return true
	}
	late := time.NewTimer(maxUnacknowledged)
	defer late.Stop()
	for {
		select {
		case id := <-c.pubacks:
			if id == m.PacketID {
				m.settle(nil)
				return true
			}
		case <-c.gone:
			m.settle(errGone)
			return false
		case <-late.C:
			c.mu.Lock()
			c.giveUp(fmt.Sprintf("no PUBACK for %s of a message to %s", maxUnacknowledged, m.TopicName))
			c.mu.Unlock()
			m.settle(errGone)
			return false
		}
	}
}

// errGone is why a message did not come to the device.
var errGone = errors.New("the connection ended before the device had it")

func (m *downlink) settle(err error) {
	if m.done != nil {
		m.done(err)
	}
}

// taken notes a PUBACK of the device. Only one is awaited at a time: the newest
// counts.
func (c *conn) taken(id uint16) {
	for {
		select {
		case c.pubacks <- id:
			return
		default:
		}
		select {
		case <-c.pubacks:
		default:
		}
	}
}

// talk takes what a device asks for or answers, and acknowledges it. said is the topic as
// the device wrote it.
func (c *conn) talk(pk *packets.Packet, said string) {
	var err error
	switch {
	case pk.TopicName == gatewayRPC || strings.HasPrefix(pk.TopicName, rpcResponse):
		err = c.answerCommand(pk.TopicName, pk.Payload)
	case pk.TopicName == citywarden.DeviceClaim:
		err = c.mistaken(c.listener.broker.opts.Claims.Announce(c.ctx, c.device, pk.Payload))
	case pk.TopicName == citywarden.GatewayClaim:
		err = c.mistaken(c.listener.broker.opts.Claims.AnnounceBehind(c.ctx, c.device, pk.Payload))
	case strings.HasPrefix(pk.TopicName, firmwareRequest):
		err = c.answerFirmware(strings.TrimPrefix(pk.TopicName, firmwareRequest), pk.Payload)
	case strings.HasPrefix(pk.TopicName, softwareRequest):
		c.deliver(softwareError, softwareError, []byte(noPackage), nil)
	case strings.HasPrefix(pk.TopicName, rpcRequest):
		err = c.answerCall(said, strings.TrimPrefix(pk.TopicName, rpcRequest), pk.Payload)
	case pk.TopicName == gatewayRequest:
		err = c.answerGateway(pk.Payload)
	default:
		err = c.answerAttributes(said, strings.TrimPrefix(pk.TopicName, requestTopic), pk.Payload)
	}
	if err != nil {
		c.refuse(pk, err)
		return
	}
	if n, ok := c.push(pk, nil); ok {
		c.settle(n, nil)
	}
}

// mistaken returns err, and nil of a mistake that MQTT 3.1.1 can't tell: closed, the connection
// would come back with the same message for ever, of which a gateway's may be good for its other devices.
func (c *conn) mistaken(err error) error {
	switch citywarden.CodeOf(err) {
	case citywarden.CodeInvalid, citywarden.CodeNotFound, citywarden.CodeDenied:
		if c.client.Properties.ProtocolVersion < 5 {
			c.warn("claim not taken", "err", err)
			return nil
		}
	}
	return err
}

// answerCommand takes the answer to a command. One that nobody waits for any more
// is no mistake of the device.
func (c *conn) answerCommand(topic string, payload []byte) error {
	down, device := c.listener.broker.opts.Down, c.device
	text := strings.TrimPrefix(topic, rpcResponse)
	if topic == gatewayRPC {
		var m struct {
			Device string          `json:"device"`
			ID     json.Number     `json:"id"`
			Data   json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(payload, &m); err != nil || m.Device == "" {
			return citywarden.Errorf(citywarden.CodeInvalid, `answer with {"device": "NAME", "id": 1, "data": …}`)
		}
		var err error
		if device, err = down.Child(c.device, m.Device); err != nil {
			return err
		}
		text, payload = m.ID.String(), m.Data
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return citywarden.Errorf(citywarden.CodeInvalid, "%q is not the number of a command", clip(text))
	}
	err = down.Answer(c.ctx, device, id, payload)
	if citywarden.CodeOf(err) == citywarden.CodeNotFound {
		c.listener.broker.log.Debug("answer comes late", "device", device, "command", id)
		return nil
	}
	return err
}

// gatewayAnswer is what a gateway is told of a device's attributes, in ThingsBoard's order: the
// value of the one key that it asked for, or the values of several; neither when it has none.
type gatewayAnswer struct {
	ID     json.RawMessage `json:"id"`
	Device string          `json:"device"`
	Value  any             `json:"value,omitempty"`
	Values map[string]any  `json:"values,omitempty"`
}

// answerGateway answers a gateway that asks for attributes of a device behind it. No
// keys are all, of both scopes.
func (c *conn) answerGateway(payload []byte) error {
	down := c.listener.broker.opts.Down
	var ask struct {
		ID     json.RawMessage `json:"id"`
		Device string          `json:"device"`
		Client bool            `json:"client"`
		Key    *string         `json:"key"`
		Keys   []string        `json:"keys"`
	}
	if err := json.Unmarshal(payload, &ask); err != nil || ask.Device == "" || ask.Key == nil && ask.Keys == nil {
		return citywarden.Errorf(citywarden.CodeInvalid, `ask with {"id": 1, "device": "NAME", "client": true, "keys": ["a", "b"]}`)
	}
	id, err := down.Child(c.device, ask.Device)
	if err != nil {
		return err
	}
	c.call(id, ask.Device)
	keys := ask.Keys
	if ask.Key != nil { // it counts, as with ThingsBoard
		keys = []string{*ask.Key}
	}
	client, shared := []string{}, keys
	switch {
	case len(keys) == 0:
		client, shared = nil, nil
	case ask.Client:
		client, shared = keys, client
	}
	attrs, err := down.Attributes(c.ctx, id, client, shared)
	if err != nil {
		return err
	}
	values := map[string]any{}
	maps.Copy(values, attrs.Client)
	maps.Copy(values, attrs.Shared)
	answer := gatewayAnswer{ID: ask.ID, Device: ask.Device, Values: values}
	if len(keys) == 1 {
		answer.Value, answer.Values = values[keys[0]], nil
	}
	return c.answer(gatewayResponse, gatewayResponse, answer)
}

// answerAttributes answers request id of a device for its attributes.
func (c *conn) answerAttributes(said, id string, payload []byte) error {
	if err := checkRequest(requestTopic, id); err != nil {
		return err
	}
	var ask struct {
		ClientKeys string `json:"clientKeys"`
		SharedKeys string `json:"sharedKeys"`
	}
	if err := json.Unmarshal(payload, &ask); err != nil {
		return citywarden.Errorf(citywarden.CodeInvalid, `ask with {"clientKeys": "a,b", "sharedKeys": "c"}, or {} for all`)
	}
	client, shared := citywarden.AttributeKeys(ask.ClientKeys, ask.SharedKeys)
	attrs, err := c.listener.broker.opts.Down.Attributes(c.ctx, c.device, client, shared)
	if err != nil {
		return err
	}
	return c.answer(written(attributesFilter, said), written(responseTopic+id, said), attrs)
}

// checkRequest looks at the number that a device gave to a request.
func checkRequest(topic, id string) error {
	if id == "" || len(id) > 64 || strings.ContainsAny(id, "/+#") {
		return citywarden.Errorf(citywarden.CodeInvalid, "ask at %s and a number, like %s1", topic, topic)
	}
	return nil
}

// answerCall answers call id of a device to the platform.
func (c *conn) answerCall(said, id string, payload []byte) error {
	if err := checkRequest(rpcRequest, id); err != nil {
		return err
	}
	body, err := citywarden.AnswerCall(payload, time.Now(), c.limits())
	if err == nil {
		c.deliver(written(callFilter, said), written(rpcResponse+id, said), body, nil)
	}
	return err
}

// maxChunk is how large a chunk of a firmware may be; the packet has room for it.
const maxChunk = 128 << 10

// What ThingsBoard says at v2/fw/error.
const (
	noPackage    = "NOT_FOUND" // the device is to load nothing
	tooLargePart = "PAYLOAD_TOO_LARGE"
)

// maxChunkSizes is of how many requests for firmware a connection remembers the size of
// the chunks.
const maxChunkSizes = 16

// answerFirmware sends a chunk of the firmware that the device is to load, of as many
// bytes as the payload says, or else said before in the same request; after the last one an empty one. ThingsBoard tells what is
// wrong at a topic of its own.
func (c *conn) answerFirmware(request string, payload []byte) error {
	id, number, ok := strings.Cut(request, "/chunk/")
	if !ok || checkRequest(firmwareRequest, id) != nil {
		return citywarden.Errorf(citywarden.CodeInvalid, "ask at %sID/chunk/NUMBER, the numbers beginning with 0", firmwareRequest)
	}
	var file []byte
	err := citywarden.Errorf(citywarden.CodeNotFound, "there is no firmware")
	if f := c.listener.broker.opts.Firmware; f != nil {
		file, err = f.Image(c.ctx, c.device, "", "")
	}
	if citywarden.CodeOf(err) == citywarden.CodeNotFound {
		c.listener.broker.log.Debug("no firmware for the device", "device", c.device, "err", err)
		c.deliver(firmwareError, firmwareError, []byte(noPackage), nil)
		return nil
	}
	if err != nil {
		return err
	}
	size := strings.TrimSpace(string(payload))
	if n, said := c.chunkSizes[id]; size == "" && said {
		size = strconv.Itoa(n)
	}
	chunk, err := citywarden.Chunk(file, size, number)
	if err != nil {
		return err
	}
	if c.chunkSizes == nil || len(c.chunkSizes) >= maxChunkSizes {
		c.chunkSizes = map[string]int{}
	}
	c.chunkSizes[strings.Clone(id)], _ = strconv.Atoi(size) // "" is all of it, as 0; the number and the id alone: the packet is longer
	if len(chunk) > maxChunk {
		c.deliver(firmwareError, firmwareError, []byte(tooLargePart), nil)
		return citywarden.Errorf(citywarden.CodeInvalid, "a chunk of %d bytes; ask for at most %d: the payload is how many", len(chunk), maxChunk)
	}
	c.mu.Lock()
	var filter string
	for f := range c.subs {
		if forFirmware(f) {
			filter = f
		}
	}
	c.mu.Unlock()
	c.deliver(filter, firmwareResponse+id+"/chunk/"+number, chunk, nil)
	return nil
}

func (c *conn) answer(filter, topic string, body any) error {
	b, err := citywarden.PlainJSON(body)
	if err == nil {
		c.deliver(filter, topic, b, nil)
	}
	return err
}

// remember notes what a gateway calls the device of a connect message, and tells it of
// what is desired of the device.
func (c *conn) remember(payload []byte) {
	var m struct {
		Device string `json:"device"`
	}
	if json.Unmarshal(payload, &m) != nil {
		return // the log says so
	}
	down := c.listener.broker.opts.Down
	id, err := down.Child(c.device, m.Device)
	if err != nil {
		return
	}
	c.call(id, m.Device)
	if c.subscribed(citywarden.GatewayAttributes) {
		c.mu.Lock()
		c.addReminder(id)
		c.mu.Unlock()
	}
}

func (c *conn) call(id citywarden.DeviceID, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names == nil {
		c.names = map[citywarden.DeviceID]string{}
	}
	if len(c.names) < maxNames {
		c.names[id] = name
	}
}

// name returns what the gateway calls a device behind it, by default its id.
func (c *conn) name(id citywarden.DeviceID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.called(id)
}

// called is name; it needs mu.
func (c *conn) called(id citywarden.DeviceID) string {
	if n := c.names[id]; n != "" {
		return n
	}
	return string(id)
}
