// A provider that knows a schema and no cloud: it serves the schema that lies beside it to a real
// Terraform, which then checks every block, argument, type and reference, and plans. Applying creates
// nothing but the state, with random text where the cloud would decide. Write-only arguments are not
// in the state: what they send goes to the file LAPWING_TEST_SENT.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

type attribute struct {
	Type     json.RawMessage `json:"type"`
	Required bool            `json:"required"`
	Computed bool            `json:"computed"`
}

type nested struct {
	Mode  string `json:"mode"`
	Min   int64  `json:"min"`
	Max   int64  `json:"max"`
	Block block  `json:"block"`
}

type block struct {
	Attributes map[string]attribute `json:"attributes"`
	Blocks     map[string]nested    `json:"blocks"`
}

type document struct {
	Provider  block            `json:"provider"`
	Resources map[string]block `json:"resources"`
	Data      map[string]block `json:"data"`
}

type server struct {
	tfprotov6.ProviderServer
	document document
}

func typeOf(raw json.RawMessage) tftypes.Type {
	var name string
	if json.Unmarshal(raw, &name) == nil {
		switch name {
		case "string":
			return tftypes.String
		case "number":
			return tftypes.Number
		case "bool":
			return tftypes.Bool
		}
		return tftypes.DynamicPseudoType
	}
	var pair []json.RawMessage
	if err := json.Unmarshal(raw, &pair); err != nil {
		panic(err)
	}
	inner := typeOf(pair[1])
	if inner.Is(tftypes.DynamicPseudoType) {
		return tftypes.DynamicPseudoType
	}
	if string(pair[0]) == `"map"` {
		return tftypes.Map{ElementType: inner}
	}
	return tftypes.List{ElementType: inner}
}

// isWriteOnly follows the naming of the providers: the published schema does not contain it.
func isWriteOnly(name string) bool {
	return strings.HasSuffix(name, "_wo")
}

func schemaOf(b block, top bool) *tfprotov6.SchemaBlock {
	result := &tfprotov6.SchemaBlock{}
	for name, a := range b.Attributes {
		writeOnly := isWriteOnly(name)
		result.Attributes = append(result.Attributes, &tfprotov6.SchemaAttribute{
			Name: name, Type: typeOf(a.Type), Required: a.Required, WriteOnly: writeOnly,
			Optional: !a.Required && (writeOnly || !a.Computed),
			Computed: !writeOnly && (a.Computed || (top && !a.Required)),
		})
	}
	for name, n := range b.Blocks {
		mode := tfprotov6.SchemaNestedBlockNestingModeList
		if n.Mode == "single" {
			mode = tfprotov6.SchemaNestedBlockNestingModeSingle
		}
		found := &tfprotov6.SchemaNestedBlock{TypeName: name, Nesting: mode, Block: schemaOf(n.Block, false)}
		if n.Mode != "single" {
			found.MinItems, found.MaxItems = n.Min, n.Max
		}
		result.BlockTypes = append(result.BlockTypes, found)
	}
	return result
}

func (s *server) schemas(from map[string]block) map[string]*tfprotov6.Schema {
	result := map[string]*tfprotov6.Schema{}
	for name, b := range from {
		result[name] = &tfprotov6.Schema{Block: schemaOf(b, true)}
	}
	return result
}

func (s *server) GetProviderSchema(context.Context, *tfprotov6.GetProviderSchemaRequest) (*tfprotov6.GetProviderSchemaResponse, error) {
	return &tfprotov6.GetProviderSchemaResponse{
		Provider:          &tfprotov6.Schema{Block: schemaOf(s.document.Provider, false)},
		ResourceSchemas:   s.schemas(s.document.Resources),
		DataSourceSchemas: s.schemas(s.document.Data),
	}, nil
}

func (s *server) GetResourceIdentitySchemas(context.Context, *tfprotov6.GetResourceIdentitySchemasRequest) (*tfprotov6.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov6.GetResourceIdentitySchemasResponse{}, nil
}

func (s *server) ValidateProviderConfig(_ context.Context, r *tfprotov6.ValidateProviderConfigRequest) (*tfprotov6.ValidateProviderConfigResponse, error) {
	return &tfprotov6.ValidateProviderConfigResponse{PreparedConfig: r.Config}, nil
}

func (s *server) ConfigureProvider(context.Context, *tfprotov6.ConfigureProviderRequest) (*tfprotov6.ConfigureProviderResponse, error) {
	return &tfprotov6.ConfigureProviderResponse{}, nil
}

func (s *server) StopProvider(context.Context, *tfprotov6.StopProviderRequest) (*tfprotov6.StopProviderResponse, error) {
	return &tfprotov6.StopProviderResponse{}, nil
}

func (s *server) ValidateResourceConfig(context.Context, *tfprotov6.ValidateResourceConfigRequest) (*tfprotov6.ValidateResourceConfigResponse, error) {
	return &tfprotov6.ValidateResourceConfigResponse{}, nil
}

func (s *server) ValidateDataResourceConfig(context.Context, *tfprotov6.ValidateDataResourceConfigRequest) (*tfprotov6.ValidateDataResourceConfigResponse, error) {
	return &tfprotov6.ValidateDataResourceConfigResponse{}, nil
}

// filled is a value with everything at its top that is not set taken as told by the cloud: unknown
// while planning, null when a data source is read.
func filled(b block, value *tfprotov6.DynamicValue, read bool) (*tfprotov6.DynamicValue, error) {
	schema := &tfprotov6.Schema{Block: schemaOf(b, true)}
	kind := schema.ValueType()
	found, err := value.Unmarshal(kind)
	if err != nil {
		return nil, err
	}
	if found.IsNull() {
		return value, nil
	}
	members := map[string]tftypes.Value{}
	if err := found.As(&members); err != nil {
		return nil, err
	}
	for name, a := range b.Attributes {
		if isWriteOnly(name) {
			members[name] = tftypes.NewValue(typeOf(a.Type), nil)
		} else if member := members[name]; !a.Required && member.IsNull() {
			content := any(tftypes.UnknownValue)
			if read {
				content = nil
				if name == "id" {
					content = "known-after-apply"
				}
			}
			members[name] = tftypes.NewValue(typeOf(a.Type), content)
		}
	}
	result, err := tfprotov6.NewDynamicValue(kind, tftypes.NewValue(kind, members))
	return &result, err
}

func (s *server) PlanResourceChange(_ context.Context, r *tfprotov6.PlanResourceChangeRequest) (*tfprotov6.PlanResourceChangeResponse, error) {
	planned, err := filled(s.document.Resources[r.TypeName], r.ProposedNewState, false)
	response := &tfprotov6.PlanResourceChangeResponse{PlannedState: planned, UnsafeToUseLegacyTypeSystem: true}
	if strings.HasPrefix(r.TypeName, "random_") {
		// Documented: a changed keeper makes a new value. The published schema does not contain this.
		response.RequiresReplace = []*tftypes.AttributePath{tftypes.NewAttributePath().WithAttributeName("keepers")}
	}
	return response, err
}

func (s *server) ReadDataSource(_ context.Context, r *tfprotov6.ReadDataSourceRequest) (*tfprotov6.ReadDataSourceResponse, error) {
	state, err := filled(s.document.Data[r.TypeName], r.Config, true)
	return &tfprotov6.ReadDataSourceResponse{State: state}, err
}

func (s *server) ReadResource(_ context.Context, r *tfprotov6.ReadResourceRequest) (*tfprotov6.ReadResourceResponse, error) {
	return &tfprotov6.ReadResourceResponse{NewState: r.CurrentState}, nil
}

func (s *server) UpgradeResourceState(_ context.Context, r *tfprotov6.UpgradeResourceStateRequest) (*tfprotov6.UpgradeResourceStateResponse, error) {
	kind := s.kind(r.TypeName)
	found, err := r.RawState.Unmarshal(kind)
	if err != nil {
		return nil, err
	}
	state, err := tfprotov6.NewDynamicValue(kind, found)
	return &tfprotov6.UpgradeResourceStateResponse{UpgradedState: &state}, err
}

func (s *server) ApplyResourceChange(_ context.Context, r *tfprotov6.ApplyResourceChangeRequest) (*tfprotov6.ApplyResourceChangeResponse, error) {
	kind := s.kind(r.TypeName)
	planned, err := r.PlannedState.Unmarshal(kind)
	if err != nil || planned.IsNull() {
		return &tfprotov6.ApplyResourceChangeResponse{NewState: r.PlannedState}, err
	}
	settled, err := tftypes.Transform(planned, func(_ *tftypes.AttributePath, v tftypes.Value) (tftypes.Value, error) {
		if v.IsKnown() {
			return v, nil
		}
		if v.Type().Is(tftypes.String) {
			return tftypes.NewValue(tftypes.String, rand.Text()), nil
		}
		return tftypes.NewValue(v.Type(), nil), nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.record(r, kind); err != nil {
		return nil, err
	}
	state, err := tfprotov6.NewDynamicValue(kind, settled)
	return &tfprotov6.ApplyResourceChangeResponse{NewState: &state, UnsafeToUseLegacyTypeSystem: true}, err
}

func (s *server) kind(name string) tftypes.Type {
	return (&tfprotov6.Schema{Block: schemaOf(s.document.Resources[name], true)}).ValueType()
}

// record appends what a provider would send of write-only arguments: the values of a new resource,
// and of one whose version of them changed.
func (s *server) record(r *tfprotov6.ApplyResourceChangeRequest, kind tftypes.Type) error {
	path := os.Getenv("LAPWING_TEST_SENT")
	if path == "" {
		return nil
	}
	config, err := r.Config.Unmarshal(kind)
	if err != nil {
		return err
	}
	prior, err := r.PriorState.Unmarshal(kind)
	if err != nil {
		return err
	}
	now, before := map[string]tftypes.Value{}, map[string]tftypes.Value{}
	if err := config.As(&now); err != nil {
		return err
	}
	if !prior.IsNull() {
		if err := prior.As(&before); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	for name, value := range now {
		version := name + "_version"
		if !isWriteOnly(name) || value.IsNull() || (!prior.IsNull() && now[version].Equal(before[version])) {
			continue
		}
		var text string
		if err := value.As(&text); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(file, "%s %s\n", r.TypeName, text); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	data, err := os.ReadFile(filepath.Join(filepath.Dir(path), "schema.json"))
	if err != nil {
		panic(err)
	}
	var found document
	if err := json.Unmarshal(data, &found); err != nil {
		panic(err)
	}
	name := "registry.terraform.io/hashicorp/google"
	if strings.Contains(filepath.Base(path), "mongodbatlas") {
		name = "registry.terraform.io/mongodb/mongodbatlas"
	}
	serve := func() tfprotov6.ProviderServer { return &server{document: found} }
	if err := tf6server.Serve(name, serve); err != nil {
		panic(err)
	}
}
