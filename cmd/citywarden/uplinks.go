package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/citywarden/citywarden"
)

type uplinksCmd struct{ remote }

// Run lists the connections to brokers elsewhere.
func (u *uplinksCmd) Run(ctx context.Context, o output) error {
	return printList(ctx, o, &u.remote, "/uplinks", nil, []string{"NAME", "URL", "CONNECTED", "SINCE", "LAST MESSAGE", "WAITING", "MESSAGES", "ERROR"}, func(at stamp, l citywarden.Link) []string {
		connected := "no"
		if l.Connected {
			connected = "yes"
		}
		var counts []string
		for _, result := range slices.Sorted(maps.Keys(l.Messages)) {
			counts = append(counts, fmt.Sprintf("%s %d", result, l.Messages[result]))
		}
		return []string{l.Name, l.URL, connected, at(l.Since), at(l.Last), fmt.Sprint(l.Waiting), dash(strings.Join(counts, ", ")), dash(l.Error)}
	})
}
