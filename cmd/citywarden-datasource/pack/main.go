// Command pack zips a folder with the folder itself as the first element of
// every name, as Grafana wants a plugin: `pack citywarden-datasource` writes
// citywarden-datasource.zip.
package main

import (
	"archive/zip"
	"fmt"
	"io/fs"
	"os"
	"path"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: pack FOLDER")
		os.Exit(2)
	}
	if err := pack(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func pack(folder string) error {
	out, err := os.Create(folder + ".zip")
	if err != nil {
		return err
	}
	defer out.Close()
	z := zip.NewWriter(out)
	root := os.DirFS(folder)
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h, err := zip.FileInfoHeader(info)
		if err != nil {
			return err
		}
		h.Name, h.Method = path.Join(path.Base(folder), name), zip.Deflate
		w, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		b, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	if err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return out.Close()
}
