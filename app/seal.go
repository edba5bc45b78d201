package app

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/citywarden/citywarden"
)

// sealFile is the key that secrets are sealed with which the platform itself must read, in
// the data folder.
const sealFile = "secret.key"

// openSeal reads the key in file, 32 bytes in hex digits. Where there is none it makes one, unless
// something is sealed with the one that is missing.
func openSeal(file string, sealed func() (bool, error), log *slog.Logger) (cipher.AEAD, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		var used bool
		if used, err = sealed(); err != nil {
			return nil, err
		}
		if used {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "secret_key: %s is not there, and pre-shared keys of devices are sealed with it; bring it back, as from a backup, "+
				"or make another with: openssl rand -hex 32 > %[1]s, and issue all those devices new keys", file)
		}
		if text, err = makeKey(file); err == nil {
			log.Info("key made to seal pre-shared keys with; keep a copy", "file", file)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("secret_key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != 32 {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "secret_key: %s does not hold 32 bytes in 64 hex digits; make it with: openssl rand -hex 32", file)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// makeKey writes a new key so that a crash leaves it whole or not there.
func makeKey(file string) ([]byte, error) {
	key := make([]byte, 32)
	rand.Read(key)
	text := []byte(hex.EncodeToString(key) + "\n")
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+"-*") // only we may read it
	if err != nil {
		return nil, err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	return text, nil
}
