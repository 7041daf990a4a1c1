package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

// checkManifests reads rendered manifests into the types of this Kubernetes; unknown kinds, unknown or repeated fields
// and wrong types are failures. It returns how many there were.
func checkManifests(files []string) (failures int, err error) {
	if err := apiextensionsv1.AddToScheme(scheme.Scheme); err != nil {
		return 0, err
	}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	objects := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return failures, err
		}
		documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
		buffer := make([]byte, len(text)+1)
		for {
			size, err := documents.Read(buffer)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return failures, fmt.Errorf("%s: %w", file, err)
			}
			document := buffer[:size]
			if onlyComments(string(document)) {
				continue
			}
			objects++
			if _, kind, err := decoder.Decode(document, nil, nil); err != nil {
				failures++
				fmt.Printf("FAILED %s: %v: %v\n", file, kind, err)
			}
		}
	}
	if objects == 0 {
		return failures, fmt.Errorf("no object in %v", files)
	}
	fmt.Printf("%s: %d objects of %d files read strictly, %d failures\n", serverVersion(), objects, len(files), failures)
	return failures, nil
}

func onlyComments(document string) bool {
	for _, line := range strings.Split(document, "\n") {
		if line = strings.TrimSpace(line); line != "" && line != "---" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}
