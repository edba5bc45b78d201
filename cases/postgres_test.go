package cases_test

import (
	"testing"

	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

// Everything here holds on PostgreSQL, too.
func TestOnPostgres(t *testing.T) { pgtest.Rerun(t, store.Open) }
