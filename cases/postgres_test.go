package cases_test

import (
	"testing"

	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

// Everything here holds on PostgreSQL, too.
func TestOnPostgres(t *testing.T) {
	pgtest.Rerun(t, func(url string) error {
		db, err := store.Open(t.Context(), url)
		if err != nil {
			return err
		}
		return db.Close()
	})
}
