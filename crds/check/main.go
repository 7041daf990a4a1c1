// check holds an API server's own rules against a CustomResourceDefinition of Pitcrew's: is the definition one that the
// server takes, and does it say about manifests and updates what lib/api says? It is built twice, against the
// libraries of the oldest and of the newest Kubernetes that Pitcrew supports.
//
//	check crd CRD.yaml CASES.jsonl     the cases as `pitcrew-crd cases` prints them
//	check manifests FILE...            whether rendered manifests are of this Kubernetes' types
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// A Case is a manifest, or an update of one, and what lib/api finds wrong with it.
type Case struct {
	Name     string
	Text     string         // as a person wrote it, or
	Object   map[string]any // as it was made
	Old      map[string]any // what it replaces
	Problems []Problem
}

// A Problem is one thing that is wrong: where, and what, with the remedy.
type Problem struct {
	Path    string
	Message string
}

func main() {
	failures, err := 0, error(nil)
	switch {
	case len(os.Args) == 4 && os.Args[1] == "crd":
		failures, err = run(os.Args[2], os.Args[3])
	case len(os.Args) > 2 && os.Args[1] == "manifests":
		failures, err = checkManifests(os.Args[2:])
	default:
		fmt.Fprintln(os.Stderr, "usage: check crd CRD.yaml CASES.jsonl | check manifests FILE...")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
	if failures > 0 {
		os.Exit(1)
	}
}

func run(crdFile, casesFile string) (failures int, err error) {
	server, err := loadServer(crdFile)
	if err != nil {
		return 0, err
	}
	cases, err := readCases(casesFile)
	if err != nil {
		return 0, err
	}
	counts := map[Verdict]int{}
	for _, c := range cases {
		answer := server.judge(c)
		counts[answer.verdict]++
		for _, difference := range differences(c, answer) {
			failures++
			fmt.Printf("FAILED %s: %s\n", c.Name, difference)
		}
	}
	unused := server.unusedRules()
	for _, rule := range unused {
		failures++
		fmt.Printf("FAILED no case breaks the rule at %s\n", rule)
	}
	fmt.Printf("%s: %s: %d cases: %d accepted, %d refused by rules, %d by types, %d as unknown fields, %d not readable; %d of %d rules broken by a case; %d failures\n",
		serverVersion(), server.crd.Spec.Names.Kind, len(cases), counts[accepted], counts[byRules], counts[byTypes], counts[asUnknown], counts[unreadable], server.ruleCount()-len(unused), server.ruleCount(), failures)
	return failures, nil
}

func readCases(file string) ([]Case, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var cases []Case
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var c Case
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", file, len(cases)+1, err)
		}
		cases = append(cases, c)
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("%s has no cases; print them with `pitcrew-crd cases`", file)
	}
	return cases, lines.Err()
}

// differences compares what the server says with what lib/api says. A server stops at the first kind of problem:
// fields that it doesn't know, then types, then rules; so only that kind is compared.
func differences(c Case, answer Answer) (found []string) {
	wanted := map[string][]string{}
	for _, p := range c.Problems {
		wanted[p.Path] = append(wanted[p.Path], p.Message)
	}
	switch answer.verdict {
	case accepted:
		for _, p := range c.Problems {
			found = append(found, fmt.Sprintf("accepted, but lib/api says: %s: %s", p.Path, p.Message))
		}
		return found
	case unreadable:
		if len(c.Problems) == 0 {
			found = append(found, "can't be read: "+answer.problems[0].Message)
		}
		return found
	}
	seen := map[Problem]bool{}
	for _, got := range answer.problems {
		match := false
		for _, message := range wanted[got.Path] {
			if answer.verdict != byRules || says(got.Message, message) {
				match = true
				seen[Problem{got.Path, message}] = true
			}
		}
		if !match {
			found = append(found, fmt.Sprintf("the server says: %s: %s; lib/api says: %v", got.Path, got.Message, c.Problems))
		}
	}
	for _, p := range c.Problems {
		unknown := strings.HasPrefix(p.Message, "unknown field")
		if !seen[p] && (answer.verdict == byRules || answer.verdict == asUnknown && unknown) {
			found = append(found, fmt.Sprintf("lib/api says: %s: %s; the server says: %v", p.Path, p.Message, answer.problems))
		}
	}
	return found
}
