package ingest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/citywarden/citywarden"
)

// loRaWAN is an event of a device as ChirpStack pushes it, of version 4 or 3.
type loRaWAN struct {
	DeviceInfo struct { // version 4
		DevEUI string `json:"devEui"`
	} `json:"deviceInfo"`
	DevEUI string `json:"devEUI"` // version 3: hexadecimal, or base64

	Time    time.Time       `json:"time"`
	DevAddr string          `json:"devAddr"`
	FCnt    *uint32         `json:"fCnt"`
	FPort   *int            `json:"fPort"`
	Data    string          `json:"data"`       // base64
	Object  json.RawMessage `json:"object"`     // as a codec of the network server's has it
	Text    string          `json:"objectJSON"` // the same, of version 3 with the marshaler json
	RxInfo  []struct {
		Time time.Time `json:"time"`
		RSSI *float64  `json:"rssi"`
		SNR  *float64  `json:"snr"`
		SNR3 *float64  `json:"loRaSNR"`
	} `json:"rxInfo"`

	// Of the event "status".
	BatteryLevel            *float64 `json:"batteryLevel"` // in percent
	BatteryLevelUnavailable bool     `json:"batteryLevelUnavailable"`
	ExternalPowerSource     bool     `json:"externalPowerSource"`
}

// eui returns the EUI of the device as 16 hexadecimal digits, "" when there is none.
func (l *loRaWAN) eui() string {
	if l.DeviceInfo.DevEUI != "" {
		return citywarden.Identity(l.DeviceInfo.DevEUI)
	}
	if b, err := base64.StdEncoding.DecodeString(l.DevEUI); err == nil && len(b) == 8 {
		return fmt.Sprintf("%x", b)
	}
	return citywarden.Identity(l.DevEUI)
}

// uplink reports whether the device sent it, by a data frame. Version 4 leaves out what is
// 0 or empty; in other events of version 3, fCnt is that of the downlink.
func (l *loRaWAN) uplink() bool {
	return l.FPort != nil || l.Data != "" || l.FCnt != nil && len(l.RxInfo) > 0
}

// ctwing is a message of China Telecom's AEP.
type ctwing struct {
	MessageType  string          `json:"messageType"`
	IMEI         string          `json:"IMEI"`
	DeviceID     string          `json:"deviceId"`
	Timestamp    int64           `json:"timestamp"`
	Payload      json.RawMessage `json:"payload"`
	EventContent json.RawMessage `json:"eventContent"`
	EventType    *int            `json:"eventType"` // of deviceOnlineOfflineReport: 0 when it left
}

// pushed finds out of which device a network server tells, and what it says.
func pushed(dir Directory, up *citywarden.Uplink) (citywarden.DeviceID, string, error) {
	if up.Topic == citywarden.GatewayLoRaWAN {
		var l loRaWAN
		if err := envelope(up, &l); err != nil {
			return "", "", err
		}
		eui := l.eui()
		if eui == "" {
			return "", "", fmt.Errorf("the event has no deviceInfo.devEui (ChirpStack 4) and no devEUI (ChirpStack 3)")
		}
		id, err := dir.Child(up.Device, eui)
		if citywarden.CodeOf(err) == citywarden.CodeNotFound {
			err = fmt.Errorf("%w, and its attribute dev_eui to %q", err, eui)
		}
		if err != nil {
			return "", "", err
		}
		return id, citywarden.DeviceLoRaWAN, nil
	}
	var m ctwing
	if err := envelope(up, &m); err != nil {
		return "", "", err
	}
	topic := citywarden.DeviceCTWing
	if m.MessageType == "deviceOnlineOfflineReport" && m.EventType != nil {
		topic = citywarden.DeviceConnected
		if *m.EventType == 0 {
			topic = citywarden.DeviceDisconnected
		}
	}
	var first error
	for _, name := range []string{m.IMEI, m.DeviceID} {
		if name == "" || name == "undefined" {
			continue
		}
		id, err := dir.Child(up.Device, name)
		if err == nil {
			return id, topic, nil
		}
		if citywarden.CodeOf(err) == citywarden.CodeNotFound {
			err = fmt.Errorf("%w, and its attribute imei or device_id to that", err)
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = fmt.Errorf("the message has no IMEI and no deviceId")
	}
	return "", "", first
}

// envelope reads the payload, JSON, into x.
func envelope(up *citywarden.Uplink, x any) error {
	err := json.Unmarshal(up.Payload, x)
	switch e := err.(type) {
	case nil:
		return nil
	case *json.UnmarshalTypeError:
		return citywarden.Errorf(citywarden.CodeInvalid, "byte %d: %s can't be the %s that it is", e.Offset, e.Field, e.Value)
	case *json.SyntaxError:
		return citywarden.Errorf(citywarden.CodeInvalid, "byte %d: %w", max(e.Offset-1, 0), err)
	}
	return citywarden.Errorf(citywarden.CodeInvalid, "%w", err)
}

// decodeLoRaWAN reads an event of ChirpStack's. The payload is for the model's
// codec; where it has none, what the network server made of it counts. How the
// message was heard are readings of rssi, snr and fcnt, for models that have them.
// An event that is no uplink is a sign of life.
func decodeLoRaWAN(model *citywarden.Model, up *citywarden.Uplink, drop *dropped) (message, error) {
	var l loRaWAN
	if err := envelope(up, &l); err != nil {
		return message{}, err
	}
	if l.Text != "" {
		l.Object = json.RawMessage(l.Text)
	}
	port, fcnt := 0, 0.0
	if l.FPort != nil {
		port = *l.FPort
	}
	if l.FCnt != nil {
		fcnt = float64(*l.FCnt)
	}
	var m message
	var err error
	switch {
	case !l.uplink():
	case l.Data != "" && model.Raw != nil || l.Data != "" && len(l.Object) < len(`{"a":1}`):
		inner := *up
		if inner.Payload, err = base64.StdEncoding.DecodeString(l.Data); err != nil {
			return message{}, citywarden.Errorf(citywarden.CodeInvalid, "data: %w", err)
		}
		drop.where = "data: "
		if m, err = decodeRaw(model, &inner, port, drop); err != nil {
			err = citywarden.Errorf(citywarden.CodeInvalid, "data: %w", err)
		}
	case len(l.Object) >= len(`{"a":1}`):
		inner := *up
		inner.Payload = l.Object
		drop.where = "object: "
		if m, err = decodeJSON(model, &inner, drop); err != nil {
			err = citywarden.Errorf(citywarden.CodeInvalid, "object: %w", err)
		}
	}
	drop.where = ""
	if err != nil {
		return message{}, err
	}
	m.at = l.Time
	add := func(name citywarden.MetricName, v *float64) {
		if x, ok := model.Metric(name); ok && v != nil && x.Kind == citywarden.KindNumber && !math.IsNaN(*v) {
			m.readings = append(m.readings, citywarden.Reading{Metric: name, Value: citywarden.Number(*v)})
		}
	}
	var rssi, snr *float64
	for _, rx := range l.RxInfo { // of the gateway that heard it best
		if m.at.IsZero() {
			m.at = rx.Time
		}
		if rx.RSSI != nil && (rssi == nil || *rx.RSSI > *rssi) {
			if rssi, snr = rx.RSSI, rx.SNR; snr == nil {
				snr = rx.SNR3
			}
			if snr == nil && l.DeviceInfo.DevEUI != "" { // version 4 leaves out a 0
				snr = new(float64)
			}
		}
	}
	add("rssi", rssi)
	add("snr", snr)
	if l.uplink() {
		add("fcnt", &fcnt)
		if l.DevAddr != "" && m.at.IsZero() { // else the time tells, also where the count begins anew at the same address
			m.once = fmt.Sprintf("%s/%.0f", l.DevAddr, fcnt)
		}
	}
	if l.BatteryLevel != nil && !l.BatteryLevelUnavailable && !l.ExternalPowerSource && *l.BatteryLevel >= 0 && *l.BatteryLevel <= 100 {
		add("battery", l.BatteryLevel)
	}
	return m, nil
}

// decodeCTWing reads a message of CTWing's. Its payload is an object for the
// model's codec, or base64 in APPdata; without a codec its keys are metrics.
func decodeCTWing(model *citywarden.Model, up *citywarden.Uplink, drop *dropped) (message, error) {
	var c ctwing
	if err := envelope(up, &c); err != nil {
		return message{}, err
	}
	inner, where := *up, "payload"
	inner.Payload = c.Payload
	if len(inner.Payload) == 0 {
		inner.Payload, where = c.EventContent, "eventContent"
	}
	var m message
	var err error
	var app struct {
		Data *string `json:"APPdata"`
	}
	switch {
	case len(inner.Payload) == 0 || string(inner.Payload) == "null": // of its life, like a response to a command
	case json.Unmarshal(inner.Payload, &app) == nil && app.Data != nil:
		where += ".APPdata"
		drop.where = where + ": "
		if inner.Payload, err = base64.StdEncoding.DecodeString(*app.Data); err == nil {
			m, err = decodeRaw(model, &inner, 0, drop)
		}
	case model.Raw != nil:
		drop.where = where + ": "
		m, err = decodeRaw(model, &inner, 0, drop)
	default:
		drop.where = where + ": "
		m, err = decodeJSON(model, &inner, drop)
	}
	drop.where = ""
	if err != nil {
		return message{}, citywarden.Errorf(citywarden.CodeInvalid, "%s: %w", where, err)
	}
	if c.Timestamp > 0 {
		m.at, _ = citywarden.UnixTime(c.Timestamp)
	}
	return m, nil
}
