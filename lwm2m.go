package citywarden

import "strings"

// SplitIPSO takes apart which resource of LwM2M a metric or a command is: object and
// resource, "3303/5700", of which the instance of the object is 0, or with an instance
// between them that is not, "3303/1/5700". Of anything else object is all of it.
func SplitIPSO(ipso string) (object, instance, resource string) {
	object, rest, _ := strings.Cut(ipso, "/")
	if instance, resource, ok := strings.Cut(rest, "/"); ok {
		return object, instance, resource
	}
	return object, "0", rest
}
