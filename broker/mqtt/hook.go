package mqtt

import (
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker"
)

// The topics a device may publish to, and the filters it may subscribe to.
const (
	telemetryTopic   = "v1/devices/me/telemetry"
	attributesTopic  = "v1/devices/me/attributes"
	rpcFilter        = "v1/devices/me/rpc/request/+"
	rpcRequest       = "v1/devices/me/rpc/request/"
	rpcResponse      = "v1/devices/me/rpc/response/"
	callFilter       = "v1/devices/me/rpc/response/+"
	attributesFilter = "v1/devices/me/attributes/response/+"
	requestTopic     = "v1/devices/me/attributes/request/" // and a number of the device's choice
	responseTopic    = "v1/devices/me/attributes/response/"

	firmwareRequest  = "v2/fw/request/"  // and ID/chunk/NUMBER
	firmwareResponse = "v2/fw/response/" // the same
	firmwareFilter   = "v2/fw/response/+/chunk/+"
	firmwareError    = "v2/fw/error"

	// ThingsBoard's software packages go the way of firmware; there are none here.
	softwareRequest = "v2/sw/request/"
	softwareFilter  = "v2/sw/response/+/chunk/+"
	softwareError   = "v2/sw/error"

	gatewayRequest  = "v1/gateway/attributes/request"
	gatewayResponse = "v1/gateway/attributes/response"
	gatewayRPC      = "v1/gateway/rpc" // both ways
)

// mayStore reports whether what is published to topic goes into the log.
func mayStore(topic string) bool {
	switch topic {
	case telemetryTopic, attributesTopic, citywarden.DeviceRaw,
		citywarden.GatewayTelemetry, citywarden.GatewayAttributes, citywarden.GatewayConnect, citywarden.GatewayDisconnect,
		citywarden.GatewayLoRaWAN, citywarden.GatewayCTWing:
		return true
	}
	return citywarden.IsLoRaWAN(topic)
}

// logTopic returns under which topic a message goes into the log.
func logTopic(topic string) string {
	if citywarden.IsLoRaWAN(topic) {
		return citywarden.GatewayLoRaWAN
	}
	return topic
}

// maySubscribe compares filters as they are written: matching them, as mochi's
// own access list does, would let a wildcard through that covers more.
func maySubscribe(filter string) bool {
	switch filter = long(filter); filter {
	case softwareFilter, softwareError,
		rpcFilter, callFilter, attributesTopic, attributesFilter, citywarden.GatewayAttributes, gatewayResponse, gatewayRPC, firmwareError:
		return true
	}
	return forFirmware(filter)
}

// forFirmware reports whether the chunks of a firmware come to a filter: v2/fw/response/+,
// as ThingsBoard's SDK has it, or v2/fw/response/ID/chunk/+.
func forFirmware(filter string) bool {
	rest, ok := strings.CutPrefix(filter, firmwareResponse)
	if !ok || rest == "+" {
		return ok
	}
	id, ok := strings.CutSuffix(rest, "/chunk/+")
	return ok && (id == "+" || checkRequest(firmwareRequest, id) == nil)
}

// hook is what we change in mochi.
type hook struct {
	mochi.HookBase
	broker *Broker
	server *mochi.Server
}

func (h *hook) ID() string { return "citywarden" }

func (h *hook) Provides(b byte) bool {
	switch b {
	case mochi.OnConnectAuthenticate, mochi.OnSessionEstablished, mochi.OnDisconnect, mochi.OnClientExpired,
		mochi.OnACLCheck, mochi.OnSubscribed, mochi.OnUnsubscribed, mochi.OnPacketRead, mochi.OnPacketEncode:
		return true
	}
	return false
}

// connOf returns the connection of cl; each has one, there is no inline client.
func connOf(cl *mochi.Client) *conn { return cl.Net.Conn.(*conn) }

// OnConnectAuthenticate decides who the device is.
func (h *hook) OnConnectAuthenticate(cl *mochi.Client, pk packets.Packet) bool {
	c := connOf(cl)
	c.client = cl
	c.clientID = cl.ID
	if r := h.identify(c, pk); r != nil {
		c.refuseConnect(r)
		return false
	}

	if lim := h.broker.opts.Limits; lim != nil && !c.guest {
		if err := lim.Connect(c.device, "mqtt"); err != nil {
			c.refuseConnect(&refusal{packets.ErrConnectionRateExceeded, serverUnavailable3, err.Error()})
			return false
		}
	}
	if c.guest {
		cl.ID = citywarden.ProvisionUser + " " + c.remote
		cl.Properties.Will = mochi.Will{}
		c.setLastDeadline(time.Now().Add(provisionTimeout))
		c.established.Store(true)
		c.admit()
		return true
	}
	// A session belongs to the credential, not to whoever knows the client id:
	// two devices may both call themselves "ESP8266Client" and don't meet.
	cl.ID = string(c.device) + "/" + c.clientID
	cl.Properties.Will = mochi.Will{} // ours to send, see OnDisconnect: mochi would skip the log
	switch {
	case cl.Properties.ProtocolVersion == 5 && cl.State.Keepalive == 0:
		cl.State.Keepalive, cl.State.ServerKeepalive = idleKeepAlive, true // [MQTT-3.2.2-21]
	case cl.State.Keepalive > safeKeepAlive:
		cl.State.Keepalive = safeKeepAlive
	}
	c.unwatch = h.broker.opts.Down.Listen(c.device, citywarden.DownlinkRevoked, func(m citywarden.Downlink) bool {
		if m.Device != c.device {
			return false
		}
		c.suspectNow()
		return true
	})
	c.established.Store(true)
	c.admit()
	return true
}

// serverUnavailable3 is the only return code of MQTT 3.1.1 with which a device comes again.
const serverUnavailable3 = 3

// refuseConnect has the CONNECT answered with no.
func (c *conn) refuseConnect(r *refusal) {
	b := c.listener.broker
	c.refusal = r
	c.explained.Store(true)
	c.linger.Store(true)
	b.metrics.refused.WithLabelValues("connect").Inc()
	b.log.Warn("connection refused", "remote", c.remote, "client", c.clientID, "device", c.device, "err", r.reason)
}

// limits returns what the device may send.
func (c *conn) limits() citywarden.Limits {
	if l := c.listener.broker.opts.Limits; l != nil {
		return l.Limits(c.device)
	}
	return citywarden.Limits{}
}

// identify returns nil when the device of pk is known and may connect so.
func (h *hook) identify(c *conn, pk packets.Packet) *refusal {
	const notAuthorized3, unavailable3, badID3 = 5, serverUnavailable3, 2
	user, password := string(pk.Connect.Username), string(pk.Connect.Password)
	if len(c.clientID) > maxClientID {
		return &refusal{packets.ErrClientIdentifierNotValid, badID3, fmt.Sprintf("client id of %d bytes; at most %d are taken", len(c.clientID), maxClientID)}
	}
	asks := user == citywarden.ProvisionUser && password == "" || user == "" && c.clientID == citywarden.ProvisionUser
	if p := h.broker.opts.Provision; asks && p != nil && len(p.Provisioning()) > 0 {
		select {
		case h.broker.guests <- struct{}{}: // report gives it back
			c.guest, c.asks = true, maxProvision
			return nil
		default:
			return &refusal{packets.ErrServerBusy, unavailable3, fmt.Sprintf("%d devices ask for a credential already; come again", maxGuests)}
		}
	}
	var id citywarden.DeviceID
	err := error(citywarden.Errorf(citywarden.CodeUnauthenticated, "no user name and no certificate"))
	shown := "client"
	if chain := c.certificates(); len(chain) > 0 {
		shown = "client certificate"
		certified := sync.OnceValue(func() bool { return h.broker.opts.Certified != nil && h.broker.opts.Certified(chain) })
		c.known = func() (citywarden.DeviceID, error) {
			return h.broker.opts.Auth.AuthenticateCertificate(chain[0], certified)
		}
		id, err = c.known()
	}
	if user != "" && citywarden.CodeOf(err) == citywarden.CodeUnauthenticated {
		shown = "access token " + hint(user)
		id, err = h.byUser(c, user, password)
	}
	switch citywarden.CodeOf(err) {
	case "":
		c.device = id
	case citywarden.CodeUnauthenticated, citywarden.CodeNotFound:
		reason := fmt.Sprintf("%s is unknown: %v; register it with POST /api/v1/devices/{id}/credentials", shown, err)
		switch {
		case user != "":
			reason = fmt.Sprintf("%s is unknown (%v), and so is the user name with that password and client id; issue one with POST /api/v1/devices/{id}/credentials and set it as the MQTT user name", shown, err)
		case shown == "client":
			reason = "no user name; set the device's access token as the MQTT user name and no password, or the user name and password that were issued for it"
		}
		return &refusal{packets.ErrNotAuthorized, notAuthorized3, reason}
	case citywarden.CodeDenied:
		return &refusal{packets.ErrNotAuthorized, notAuthorized3, fmt.Sprintf("%s: %v", shown, err)}
	default:
		return &refusal{packets.ErrServerUnavailable, unavailable3, fmt.Sprintf("%s could not be checked: %v", shown, err)}
	}
	if pk.Connect.WillFlag {
		death := broker.ParseNodeTopic(pk.Connect.WillTopic)
		if death.What == broker.NDEATH {
			c.node = broker.NewNode(death.Group, death.Node, nil)
		}
		if death.What != broker.NDEATH && !mayStore(pk.Connect.WillTopic) {
			return &refusal{packets.ErrNotAuthorized, notAuthorized3, fmt.Sprintf("will topic %q: %s", clip(pk.Connect.WillTopic), publishAdvice)}
		}
		c.will = &citywarden.Uplink{Device: id, Protocol: citywarden.ProtocolWill, Topic: logTopic(pk.Connect.WillTopic), Payload: pk.Connect.WillPayload}
	}
	return nil
}

// byUser finds the device by user name and password, or by the user name as its token.
func (h *hook) byUser(c *conn, user, password string) (id citywarden.DeviceID, err error) {
	tokens := []string{user}
	if password != "" {
		tokens = []string{citywarden.MQTTSecret(c.clientID, user, password), citywarden.MQTTSecret("", user, password), user}
	}
	for _, token := range tokens {
		c.known = func() (citywarden.DeviceID, error) { return h.broker.opts.Auth.Authenticate(token) }
		if id, err = c.known(); citywarden.CodeOf(err) != citywarden.CodeUnauthenticated {
			break
		}
	}
	return id, err
}

const publishAdvice = "a device may publish to " + telemetryTopic + ", " + attributesTopic + ", " + citywarden.DeviceRaw + ", " + citywarden.DeviceClaim + ", " + requestTopic + "ID, " + rpcRequest + "ID, " + rpcResponse + "ID and " + firmwareRequest + "ID/chunk/N, a gateway to " +
	citywarden.GatewayTelemetry + ", attributes, connect, disconnect, lorawan, ctwing, claim, attributes/request and rpc, ChirpStack to application/…/event/…, an edge node of Sparkplug B to " +
	broker.SparkplugSpace + "GROUP/NBIRTH/NODE and so on, of one group and node, and to nothing else"

// hint shows as much of a token as a person needs to recognise it.
func hint(token string) string {
	if len(token) < 8 {
		return fmt.Sprintf("of %d characters", len(token))
	}
	return fmt.Sprintf("%q…", token[:4])
}

// clip shortens what a device sent, for the log.
func clip(s string) string {
	if len(s) > 128 {
		return s[:128] + "…"
	}
	return s
}

func (h *hook) OnSessionEstablished(cl *mochi.Client, _ packets.Packet) {
	c := connOf(cl)
	h.broker.metrics.connections.Inc()
	h.broker.log.Debug("device connected", "device", c.device, "client", c.clientID, "remote", c.remote,
		"version", cl.Properties.ProtocolVersion)
}

// OnDisconnect sends the will of a device that went without a word, through the
// log like any message, and not to subscribers.
func (h *hook) OnDisconnect(cl *mochi.Client, _ error, _ bool) {
	c := connOf(cl)
	h.broker.metrics.connections.Dec()
	if c.node != nil {
		defer h.broker.nodes.CompareAndDelete(c.nodeKey(), c)
	}
	if c.will == nil || c.graceful.Load() || c.stopping.Load() || h.broker.revoked(c) != nil {
		return
	}
	ups := []citywarden.Uplink{*c.will}
	if c.node != nil && strings.HasPrefix(c.will.Topic, broker.SparkplugSpace) {
		var err error
		if ups, err = c.death(c.will.Payload); err != nil {
			h.broker.log.Debug("death without a birth", "device", c.device, "topic", c.will.Topic, "err", err)
			return
		}
	}
	for _, up := range ups {
		up.Received = time.Now().UTC()
		h.broker.opts.Accept.Accept(c.listener.ctx, up, func(err error) {
			if err != nil {
				h.broker.log.Error("will not stored", "device", up.Device, "topic", up.Topic, "err", err)
			}
		})
	}
}

// OnClientExpired takes the subscriptions out with the session; mochi leaves them.
func (h *hook) OnClientExpired(cl *mochi.Client) { h.server.UnsubscribeClient(cl) }

// OnACLCheck says what may be subscribed to; mochi is not asked about what is
// published, see publish.
func (h *hook) OnACLCheck(cl *mochi.Client, topic string, write bool) bool {
	c := connOf(cl)
	advice := subscribeAdvice
	if !write && len(topic) <= maxTopic && (!c.guest && (maySubscribe(topic) || c.mayControl(topic)) || c.guest && topic == citywarden.ProvisionResponse) {
		if c.mayHaveMore(topic) {
			return true
		}
		advice = fmt.Sprintf("a connection has %d subscriptions at most; a node of Sparkplug subscribes to DCMD/NODE/# for all of its devices", maxSubscriptions)
	}
	h.broker.metrics.refused.WithLabelValues("subscribe").Inc()
	if c.warnOnce("subscribe " + clip(topic)) {
		c.warn("subscription refused", "filter", clip(topic), "err", advice)
	}
	return false
}

// mayHaveMore reports whether there is room for a subscription, and takes it until OnSubscribed:
// mochi asks for all filters of a packet before that.
func (c *conn) mayHaveMore(filter string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, has := c.subs[filter]; has {
		return true
	}
	if len(c.subs)+c.granting >= maxSubscriptions {
		return false
	}
	c.granting++
	return true
}

const subscribeAdvice = "a device may subscribe to " + rpcFilter + ", " + callFilter + ", " + attributesTopic + ", " + attributesFilter + " and " + firmwareFilter + ", a gateway to " +
	citywarden.GatewayAttributes + ", " + gatewayResponse + " and " + gatewayRPC + ", an edge node of Sparkplug B to " + broker.SparkplugHost + " and NCMD and DCMD of its own, and to nothing else"

// OnSubscribed notes what was granted.
func (h *hook) OnSubscribed(cl *mochi.Client, pk packets.Packet, codes []byte) {
	connOf(cl).granting = 0
	for i, f := range pk.Filters {
		if codes[i] <= packets.CodeGrantedQos2.Code {
			connOf(cl).subscribe(f.Filter, min(codes[i], 1), f.Identifier)
		}
	}
}

// OnUnsubscribed forgets it.
func (h *hook) OnUnsubscribed(cl *mochi.Client, pk packets.Packet) {
	for _, f := range pk.Filters {
		connOf(cl).unsubscribe(f.Filter)
	}
}

// revoked returns why the credential of an open session is not good any more: it
// has ended, was replaced or given to another device, or its device was deleted or
// disabled. While it can't be checked the session stays as it is.
func (b *Broker) revoked(c *conn) error {
	id, err := c.known()
	switch citywarden.CodeOf(err) {
	case "":
		if id != c.device {
			return citywarden.Errorf(citywarden.CodeUnauthenticated, "it belongs to another device now")
		}
		return nil
	case citywarden.CodeUnauthenticated, citywarden.CodeNotFound, citywarden.CodeDenied:
		return err
	}
	return nil
}

// OnPacketRead looks at packets before mochi does: it ends a session whose token
// was revoked, resolves topic aliases, because mochi acknowledges unknown ones and
// checks access before resolving, and refuses what mochi would drop without an
// answer.
func (h *hook) OnPacketRead(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if c := connOf(cl); c.established.Load() && !c.guest && pk.FixedHeader.Type != packets.Disconnect {
		if c.revoked() {
			return pk, packets.ErrRejectPacket
		}
	}
	switch pk.FixedHeader.Type {
	case packets.Connect:
		// A session ends with its connection: mochi would say that one that is taken over is there, and the
		// device would not subscribe again.
		pk.Connect.Clean = pk.Connect.Clean || pk.ProtocolVersion == 5 || pk.Connect.ClientIdentifier != ""
	case packets.Puback:
		connOf(cl).taken(pk.PacketID)
	case packets.Disconnect:
		c := connOf(cl)
		c.graceful.Store(pk.ReasonCode == packets.CodeDisconnect.Code) // [MQTT-3.14.4-3]
	case packets.Publish:
		c := connOf(cl)
		if a := pk.Properties.TopicAlias; pk.Properties.TopicAliasFlag && a > 0 && a <= maxAliases {
			switch known, ok := c.aliases[a]; {
			case pk.TopicName != "":
				if c.aliases == nil {
					c.aliases = make(map[uint16]string)
				}
				if delete(c.aliases, a); len(pk.TopicName) <= maxTopic { // longer ones are refused
					c.aliases[a] = pk.TopicName
				}
			case ok:
				pk.TopicName = known
			default:
				c.warn("device disconnected", "err", fmt.Sprintf("topic alias %d was never set", a))
				c.disconnect(packets.ErrTopicAliasInvalid, "")
				return pk, packets.ErrRejectPacket
			}
		}
		if pk.FixedHeader.Qos == 2 && c.unreleased() >= maxUnreleased {
			c.warn("device disconnected", "err", fmt.Sprintf("%d QoS 2 messages wait for their PUBREL", maxUnreleased))
			c.disconnect(packets.ErrReceiveMaximum, "")
			return pk, packets.ErrRejectPacket
		}
		if pk.PublishValidate(maxAliases) == packets.CodeSuccess {
			said := pk.TopicName
			pk.TopicName = long(said)
			h.publish(c, &pk, said)
			pk.TopicName = mochi.SysPrefix
		}
	}
	return pk, nil
}

// publish takes the message. It is ours alone: mochi would acknowledge it before it
// is durable, and after most errors too. With a topic of $SYS, which nobody may publish
// to, mochi does nothing; after an error of OnPublish neither, but it would
// write the whole packet to its log first.
//
// said is the topic as the device wrote it, see long.
func (h *hook) publish(c *conn, pk *packets.Packet, said string) {
	if c.guest {
		h.provision(c, pk)
		return
	}
	if len(pk.TopicName) > maxTopic && (strings.HasPrefix(pk.TopicName, broker.SparkplugSpace) || mayStore(pk.TopicName)) {
		c.refuse(pk, citywarden.Errorf(citywarden.CodeDenied, "topic %q of %d bytes; at most %d are taken", clip(pk.TopicName), len(pk.TopicName), maxTopic))
		return
	}
	if strings.HasPrefix(pk.TopicName, broker.SparkplugSpace) {
		c.sparkplug(pk)
		return
	}
	talk := strings.HasPrefix(pk.TopicName, requestTopic) || strings.HasPrefix(pk.TopicName, rpcRequest) || strings.HasPrefix(pk.TopicName, rpcResponse) ||
		strings.HasPrefix(pk.TopicName, firmwareRequest) || strings.HasPrefix(pk.TopicName, softwareRequest) ||
		pk.TopicName == gatewayRequest || pk.TopicName == gatewayRPC || // what is not for the log
		h.broker.opts.Claims != nil && (pk.TopicName == citywarden.DeviceClaim || pk.TopicName == citywarden.GatewayClaim)
	if !talk && !mayStore(pk.TopicName) {
		h.refuse(c, pk)
		return
	}
	if c.repeated(pk) {
		return
	}
	if talk {
		c.talk(pk, said)
		return
	}
	if pk.TopicName == citywarden.GatewayConnect {
		c.remember(pk.Payload)
	}
	c.accept(pk, citywarden.Uplink{
		Device:   c.device,
		Protocol: "mqtt",
		Topic:    logTopic(pk.TopicName),
		Payload:  pk.Payload,
		Received: time.Now().UTC(),
	})
}

// provision answers one that has come for a credential.
func (h *hook) provision(c *conn, pk *packets.Packet) {
	switch {
	case pk.TopicName != citywarden.ProvisionRequest:
		c.refuse(pk, citywarden.Errorf(citywarden.CodeDenied, "topic %q: the user %s may publish to %s only", clip(pk.TopicName), citywarden.ProvisionUser, citywarden.ProvisionRequest))
	case !c.subscribed(citywarden.ProvisionResponse):
		c.refuse(pk, citywarden.Errorf(citywarden.CodeDenied, "subscribe to %s first: a credential is given once", citywarden.ProvisionResponse))
	case c.asks == 0:
		c.warn("device disconnected", "err", fmt.Sprintf("it has asked %d times for a credential", maxProvision))
		c.disconnect(packets.ErrQuotaExceeded, "too many requests; come again")
	case !c.repeated(pk):
		c.asks--
		from := citywarden.Asker{Protocol: "mqtt", Address: c.remote}
		if chain := c.certificates(); len(chain) > 0 {
			from.Certificate = chain[0]
		}
		answer := h.broker.opts.Provision.Provision(c.ctx, from, pk.Payload)
		if n, ok := c.push(pk, nil); ok {
			c.settle(n, nil)
		}
		c.deliver(citywarden.ProvisionResponse, citywarden.ProvisionResponse, answer, nil)
	}
}

func (h *hook) refuse(c *conn, pk *packets.Packet) {
	meant := citywarden.DidYouMean(pk.TopicName, []string{telemetryTopic, attributesTopic, citywarden.DeviceRaw, citywarden.DeviceClaim, citywarden.GatewayTelemetry, citywarden.GatewayConnect})
	c.refuse(pk, citywarden.Errorf(citywarden.CodeDenied, "topic %q: %s%s", clip(pk.TopicName), publishAdvice, meant))
}

// OnPacketEncode adds what mochi leaves out: the limits in the CONNACK, and
// why a connection or subscription was refused.
func (h *hook) OnPacketEncode(cl *mochi.Client, pk packets.Packet) packets.Packet {
	switch pk.FixedHeader.Type {
	case packets.Connack:
		c := connOf(cl)
		if pk.ReasonCode == 0 {
			pk.Properties.MaximumPacketSize = maxPacket
			pk.Properties.TopicAliasMaximum = maxAliases
			pk.Properties.SharedSubAvailable, pk.Properties.SharedSubAvailableFlag = 0, true // mochi does not say so
			break
		}
		if cl.Properties.ProtocolVersion < 5 && pk.ReasonCode == packets.ErrUnspecifiedError.Code {
			pk.ReasonCode = packets.Err3ClientIdentifierNotValid.Code // a session without a client id [MQTT-3.1.3-8]
		}
		if c.refusal != nil {
			pk.ReasonCode = c.refusal.code.Code
			pk.Properties.ReasonString = c.refusal.reason
			if cl.Properties.ProtocolVersion < 5 {
				pk.ReasonCode = c.refusal.code3
			}
		}
	case packets.Pubcomp:
		if connOf(cl).released(pk.PacketID) {
			pk.ReasonCode, pk.Properties.ReasonString = packets.CodeSuccess.Code, "" // mochi doesn't know these ids
		}
	case packets.Suback:
		for _, code := range pk.ReasonCodes {
			if code == packets.ErrUnspecifiedError.Code {
				pk.Properties.ReasonString = subscribeAdvice
			}
		}
	}
	pk.Properties.ReasonString = clipReason(pk.Properties.ReasonString)
	return pk
}

// maxReason is how many bytes of a reason a packet has; a text may have 65,535 [MQTT-1.5.4].
const maxReason = 4096

// clipReason shortens a reason, between two characters.
func clipReason(s string) string {
	if len(s) <= maxReason {
		return s
	}
	n := maxReason
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
