package mqtt

import (
	"slices"
	"strings"
)

// short are ThingsBoard's short topics of a device (v2/t for v1/devices/me/telemetry), each
// also with /j, by which a device of a model that speaks otherwise says that it sends JSON.
// Those with /p, for protobuf, are not taken. The longer come first where one begins another.
var short = []struct{ short, long string }{
	{"v2/r/req/j/", rpcRequest}, {"v2/r/req/", rpcRequest},
	{"v2/r/res/j/", rpcResponse}, {"v2/r/res/", rpcResponse},
	{"v2/a/req/j/", requestTopic}, {"v2/a/req/", requestTopic},
	{"v2/a/res/j/", responseTopic}, {"v2/a/res/", responseTopic},
	{"v2/t/j", telemetryTopic}, {"v2/t", telemetryTopic},
	{"v2/a/j", attributesTopic}, {"v2/a", attributesTopic},
}

// long returns the topic, or filter, that one of short stands for, and any other as it is.
func long(topic string) string {
	if !strings.HasPrefix(topic, "v2/") {
		return topic
	}
	for _, x := range short {
		rest, ok := strings.CutPrefix(topic, x.short)
		if ok && (rest == "") != strings.HasSuffix(x.long, "/") && !strings.Contains(rest, "/") {
			return x.long + rest
		}
	}
	return topic
}

// written returns the topic that long stands for in the form in which like is written:
// like v2/r/req/7 the answer comes to v2/r/res/7.
func written(topic, like string) string {
	i := slices.IndexFunc(short, func(x struct{ short, long string }) bool {
		return strings.HasPrefix(like, x.short) && long(like) != like && strings.HasPrefix(long(like), x.long)
	})
	if i < 0 {
		return topic
	}
	json := strings.HasSuffix(strings.TrimSuffix(short[i].short, "/"), "/j")
	for _, x := range short {
		if rest, ok := strings.CutPrefix(topic, x.long); ok && strings.HasSuffix(strings.TrimSuffix(x.short, "/"), "/j") == json {
			return x.short + rest
		}
	}
	return topic
}
