// Command citywarden-datasource is the backend of the Grafana plugin; Grafana
// starts it. `make plugin` builds and packs it.
package main

import (
	"os"
	_ "time/tzdata" // Grafana may run where there are no time zones

	"github.com/grafana/grafana-plugin-sdk-go/backend/datasource"
	"github.com/grafana/grafana-plugin-sdk-go/backend/log"

	"github.com/citywarden/citywarden/dashboards/grafana"
)

func main() {
	if err := datasource.Manage("citywarden-datasource", grafana.New, datasource.ManageOpts{}); err != nil {
		log.DefaultLogger.Error("plugin stopped", "err", err)
		os.Exit(1)
	}
}
