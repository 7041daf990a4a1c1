package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"runtime/debug"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

type Verdict string

const (
	accepted   Verdict = "accepted"
	byRules    Verdict = "refused by rules"
	byTypes    Verdict = "refused by types"
	asUnknown  Verdict = "refused as unknown"
	unreadable Verdict = "not readable"
)

type Answer struct {
	verdict  Verdict
	problems []Problem
}

// Server does with an object what an API server does between decoding and storing it, in the same order.
type Server struct {
	crd        *apiextensions.CustomResourceDefinition
	structural *structuralschema.Structural
	schema     validation.SchemaValidator
	rules      *cel.Validator
	// The same rules, each with its number for a message.
	numbered      *structuralschema.Structural
	numberedRules *cel.Validator
	where         []string // of each rule
	used          map[string]bool
}

func serverVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == "k8s.io/apiextensions-apiserver" {
				return "Kubernetes 1" + strings.TrimPrefix(dependency.Version, "v0")
			}
		}
	}
	return "Kubernetes"
}

func loadServer(file string) (*Server, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var external apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &external); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(&external)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&external.Spec)
	crd := &apiextensions.CustomResourceDefinition{}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&external, crd, nil); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	version := crd.Spec.Versions[0]
	crd.Status.StoredVersions = []string{version.Name}
	if errs := crdvalidation.ValidateCustomResourceDefinition(context.Background(), crd); len(errs) > 0 {
		return nil, fmt.Errorf("%s is refused by %s:\n%w", file, serverVersion(), errs.ToAggregate())
	}
	props := crd.Spec.Validation
	if version.Schema != nil {
		props = version.Schema
	}
	s := &Server{crd: crd, used: map[string]bool{}}
	if s.structural, err = structuralschema.NewStructural(props.OpenAPIV3Schema); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if s.schema, _, err = validation.NewSchemaValidator(props.OpenAPIV3Schema); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	s.rules = cel.NewValidator(s.structural, true, celconfig.PerCallLimit)
	s.numbered = s.structural.DeepCopy()
	s.number(s.numbered, "")
	s.numberedRules = cel.NewValidator(s.numbered, true, celconfig.PerCallLimit)
	return s, nil
}

// number replaces each rule's message by its number.
func (s *Server) number(schema *structuralschema.Structural, path string) {
	for i := range schema.XValidations {
		rule := &schema.XValidations[i]
		s.where = append(s.where, fmt.Sprintf("%s: %s", strings.TrimPrefix(path+rule.FieldPath, "."), rule.Message))
		rule.Message, rule.MessageExpression = fmt.Sprintf("#%d#", len(s.where)-1), ""
	}
	for name := range schema.Properties {
		property := schema.Properties[name]
		s.number(&property, path+"."+name)
		schema.Properties[name] = property
	}
	if schema.Items != nil {
		s.number(schema.Items, path+"[]")
	}
}

func (s *Server) ruleCount() int { return len(s.where) }

func (s *Server) unusedRules() (unused []string) {
	for i, where := range s.where {
		if !s.used[fmt.Sprintf("#%d#", i)] {
			unused = append(unused, where)
		}
	}
	return unused
}

func (s *Server) judge(c Case) Answer {
	object := c.Object
	if c.Text != "" {
		// kubectl and the API server read YAML by way of JSON, repeated keys being errors.
		text, err := yaml.YAMLToJSONStrict([]byte(c.Text))
		if err == nil {
			err = json.Unmarshal(text, &object)
		}
		if err != nil {
			return Answer{verdict: unreadable, problems: []Problem{{"", err.Error()}}}
		}
	}
	object = integers(object).(map[string]any)
	unknown := pruning.PruneWithOptions(object, s.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	if len(unknown) > 0 {
		answer := Answer{verdict: asUnknown}
		for _, path := range unknown {
			answer.problems = append(answer.problems, Problem{path, "unknown field"})
		}
		return answer
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(object, s.structural)
	defaulting.Default(object, s.structural)
	var old any
	if c.Old != nil {
		before := integers(c.Old).(map[string]any)
		defaulting.Default(before, s.structural)
		old = before
	}

	errs := s.identity(object)
	errs = append(errs, validation.ValidateCustomResource(nil, object, s.schema)...)
	errs = append(errs, objectmeta.Validate(nil, object, s.structural, false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s.structural, object)...)
	for _, err := range errs {
		switch err.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return answerOf(byTypes, errs)
		}
	}
	broken, _ := s.rules.Validate(context.Background(), nil, s.structural, object, old, celconfig.RuntimeCELCostBudget)
	numbers, _ := s.numberedRules.Validate(context.Background(), nil, s.numbered, object, old, celconfig.RuntimeCELCostBudget)
	for _, number := range numbers {
		s.used[regexp.MustCompile("#[0-9]+#").FindString(number.Detail)] = true
	}
	// What the server itself says about a name comes beside what our rule says.
	if len(broken) > 0 {
		errs = without(errs, broken)
	}
	if errs = append(errs, broken...); len(errs) > 0 {
		return answerOf(byRules, errs)
	}
	return Answer{verdict: accepted}
}

// identity checks what every object has.
func (s *Server) identity(object map[string]any) (errs field.ErrorList) {
	u := unstructured.Unstructured{Object: object}
	gvk := u.GroupVersionKind()
	version := s.crd.Spec.Group + "/" + s.crd.Spec.Versions[0].Name
	if u.GetAPIVersion() != version {
		errs = append(errs, field.Required(field.NewPath("apiVersion"), "must be "+version))
	}
	if gvk.Kind != s.crd.Spec.Names.Kind {
		errs = append(errs, field.Required(field.NewPath("kind"), "must be "+s.crd.Spec.Names.Kind))
	}
	namespaced := s.crd.Spec.Scope == apiextensions.NamespaceScoped
	if namespaced && u.GetNamespace() == "" {
		u.SetNamespace("default") // as the request's path would say
	}
	return append(errs, apivalidation.ValidateObjectMetaAccessor(&u, namespaced, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))...)
}

// without takes away the errors at places of which others speak.
func without(errs, others field.ErrorList) (kept field.ErrorList) {
	for _, err := range errs {
		same := false
		for _, other := range others {
			same = same || err.Field == other.Field
		}
		if !same {
			kept = append(kept, err)
		}
	}
	return kept
}

func answerOf(verdict Verdict, errs field.ErrorList) Answer {
	answer := Answer{verdict: verdict}
	for _, err := range errs {
		p := Problem{err.Field, err.Detail}
		// What formats say about a number names its place in the message alone.
		if place := inText.FindStringSubmatch(err.Error()); err.Field == "<nil>" && place != nil {
			p.Path = place[1]
		}
		// Of an element of a list, a rule above it names the place in its message.
		if path, rest, found := strings.Cut(err.Detail, ": "); found && strings.HasPrefix(path, err.Field+"[") {
			p = Problem{path, rest}
		}
		answer.problems = append(answer.problems, p)
	}
	return answer
}

var (
	inText     = regexp.MustCompile(` in (spec[^ ]+)$`)
	inBrackets = regexp.MustCompile(` \([0-9a-z.]+\)`)
	number     = regexp.MustCompile(`^-?[0-9]+ `)
	// Patterns and bounds of a schema have no message of ours.
	inServersWords = regexp.MustCompile(`should match '|should be (greater|less) than or equal to`)
)

// says tells whether a server's message is lib/api's: the same but for a value in brackets or a number in front, which
// servers show by themselves; or, where a pattern doesn't compile, the library's words and then ours.
func says(got, wanted string) bool {
	got = inBrackets.ReplaceAllString(got, "")
	wanted = inBrackets.ReplaceAllString(wanted, "")
	if got == wanted || got == number.ReplaceAllString(wanted, "") {
		return true
	}
	if inServersWords.MatchString(got) {
		return true
	}
	_, rule, found := strings.Cut(got, " evaluating rule: ")
	return found && strings.HasPrefix(wanted, rule)
}

// integers makes whole numbers int64, as an API server's JSON decoder does.
func integers(value any) any {
	switch v := value.(type) {
	case map[string]any:
		copied := make(map[string]any, len(v))
		for key, element := range v {
			copied[key] = integers(element)
		}
		return copied
	case []any:
		copied := make([]any, len(v))
		for i, element := range v {
			copied[i] = integers(element)
		}
		return copied
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v)
		}
	}
	return value
}
