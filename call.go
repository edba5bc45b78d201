package citywarden

import (
	"encoding/json"
	"strings"
	"time"
)

// callMethods are what a device may call.
var callMethods = []string{"getCurrentTime", "getTime", "getSessionLimits"}

// AnswerCall answers a device that calls the platform with {"method": …, "params": …},
// ThingsBoard's client-side RPC: getCurrentTime, or getTime, is now in milliseconds
// since 1970, for devices without a clock; getSessionLimits is what ThingsBoard's SDKs
// ask for when they connect, limits those of the device's model. Any other method gets {"error": …}. CodeInvalid when call
// is no such object.
func AnswerCall(call []byte, now time.Time, limits Limits) (json.RawMessage, error) {
	var c struct {
		Method string          `json:"method"`
		Params json.RawMessage `json:"params"`
	}
	if err := json.Unmarshal(call, &c); err != nil || c.Method == "" {
		return nil, Errorf(CodeInvalid, `call with {"method": "getCurrentTime", "params": {}}`)
	}
	var answer any
	switch c.Method {
	case "getCurrentTime", "getTime":
		answer = now.UnixMilli()
	case "getSessionLimits":
		return limits.SessionLimits(), nil
	default:
		const most = 64
		answer = map[string]string{"error": "no method " + c.Method[:min(len(c.Method), most)] + "; the platform answers " + strings.Join(callMethods, ", ")}
	}
	return PlainJSON(answer)
}
