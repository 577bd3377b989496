// CoreDNS with the five plugins that the node's Corefile names (layout.corefile). The stock program has 50 more, among them
// the clients of three cloud providers and a tracer: twice the packages, for nothing that the node asks.
package main

import (
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	coremain.Run()
}
