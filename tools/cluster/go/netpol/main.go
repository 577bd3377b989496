// Enforces the NetworkPolicies of the test node: the verdicts are those of kube-network-policies of kubernetes-sigs, asked
// for the first packet of each connection through a netfilter queue. Two parts in one program:
//
//   - `netpol --kubeconfig … --socket … --queue …` answers the kernel's questions.
//   - With CNI_COMMAND set it is the last plugin of the CNI chain: it names a new pod's addresses to the first part and
//     waits for its answer, so no container of the pod begins before its policies count. The API server has the
//     addresses only later.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

const (
	// The library's index of pods by address.
	addressIndex = "podIPKeyIndex"
	// The kubelet read the pod from the API server, so the watch has it within moments. The kubelet tries again.
	podWait = 10 * time.Second
	poll    = 5 * time.Millisecond
	// A question is a few hundred bytes.
	questionBytes = 64 << 10
)

func main() {
	if os.Getenv("CNI_COMMAND") != "" {
		os.Exit(plugin())
	}
	kubeconfig := flag.String("kubeconfig", "", "access to the API server")
	socket := flag.String("socket", "", "where the CNI plugin asks")
	queue := flag.Int("queue", 100, "the netfilter queue")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, *kubeconfig, *socket, *queue); err != nil {
		fmt.Fprintln(os.Stderr, "netpol:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, kubeconfig, socket string, queue int) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	// The library would register with a container runtime at the machine's own path: it must not find one.
	if err := os.Setenv("NRI_PLUGIN_SOCKET", "none"); err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	pods := &podSource{PodInformer: factory.Core().V1().Pods(), known: map[string]*entry{}}
	controller, err := networkpolicy.NewController(
		client,
		factory.Networking().V1().NetworkPolicies(),
		factory.Core().V1().Namespaces(),
		pods,
		nil, nil, nil, nil,
		// No node has this name: the library's own nftables rules then stay empty. They need a kernel with NFT_QUEUE; the
		// rules in node.py do not.
		networkpolicy.Config{QueueID: queue, NodeName: "-", NFTableName: "linkis-ecm-unused"},
	)
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	ended := make(chan error, 1)
	go func() { ended <- controller.Run(ctx) }()
	os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go pods.answer(connection)
		}
	}()
	err = <-ended
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(errors.New("the queue's reader ended"), err)
}

// podSource is the pods of the API server, found by the addresses that CNI gave them.
type podSource struct {
	coreinformers.PodInformer
	mutex sync.Mutex
	known map[string]*entry
}

// entry is who has an address; the pod as it was last seen, for one that is gone from the API but not from the node.
type entry struct {
	question
	pod *v1.Pod
}

type podInformer struct {
	cache.SharedIndexInformer
	source *podSource
}

type podIndexer struct {
	cache.Indexer
	source *podSource
}

func (s *podSource) Informer() cache.SharedIndexInformer {
	return podInformer{s.PodInformer.Informer(), s}
}

func (i podInformer) GetIndexer() cache.Indexer {
	return podIndexer{i.SharedIndexInformer.GetIndexer(), i.source}
}

func (i podIndexer) ByIndex(name, value string) ([]any, error) {
	if name == addressIndex {
		if pod := i.source.find(value); pod != nil {
			return []any{pod}, nil
		}
	}
	return i.Indexer.ByIndex(name, value)
}

func (s *podSource) find(address string) *v1.Pod {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found := s.known[address]
	if found == nil {
		return nil
	}
	if pod := s.current(found.question); pod != nil {
		found.pod = pod
	}
	return found.pod
}

func (s *podSource) current(asked question) *v1.Pod {
	object, exists, err := s.PodInformer.Informer().GetStore().GetByKey(asked.Namespace + "/" + asked.Name)
	if err != nil || !exists {
		return nil
	}
	if pod := object.(*v1.Pod); string(pod.UID) == asked.UID {
		return pod
	}
	return nil
}

// question is what the plugin asks: to know a pod's addresses, or with Forget to forget them.
type question struct {
	Namespace, Name, UID string
	Addresses            []string
	Forget               bool
}

func (s *podSource) answer(connection net.Conn) {
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(2 * podWait))
	var asked question
	if err := json.NewDecoder(io.LimitReader(connection, questionBytes)).Decode(&asked); err != nil {
		fmt.Fprintln(connection, "cannot read the question:", err)
		return
	}
	if asked.Forget {
		s.forget(asked)
		fmt.Fprintln(connection, "ok")
		return
	}
	deadline := time.Now().Add(podWait)
	pod := s.current(asked)
	for pod == nil {
		if time.Now().After(deadline) {
			fmt.Fprintf(connection, "pod %s/%s is not known\n", asked.Namespace, asked.Name)
			return
		}
		time.Sleep(poll)
		pod = s.current(asked)
	}
	s.mutex.Lock()
	for _, address := range asked.Addresses {
		s.known[address] = &entry{asked, pod}
	}
	s.mutex.Unlock()
	fmt.Fprintln(connection, "ok")
}

func (s *podSource) forget(asked question) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for address, found := range s.known {
		if found.UID == asked.UID {
			delete(s.known, address)
		}
	}
}

// network is what CNI gives on standard input: our own setting and the result of the plugins before.
type network struct {
	CNIVersion string          `json:"cniVersion"`
	Socket     string          `json:"socket"`
	PrevResult json.RawMessage `json:"prevResult"`
}

func plugin() int {
	command := os.Getenv("CNI_COMMAND")
	if command == "VERSION" {
		fmt.Println(`{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}`)
		return 0
	}
	var given network
	if err := json.NewDecoder(io.LimitReader(os.Stdin, 1<<20)).Decode(&given); err != nil {
		return refuse(given, err)
	}
	asked := fromArguments(os.Getenv("CNI_ARGS"))
	switch command {
	case "ADD":
		var before struct {
			IPs []struct {
				Address string `json:"address"`
			} `json:"ips"`
		}
		if err := json.Unmarshal(given.PrevResult, &before); err != nil {
			return refuse(given, err)
		}
		for _, found := range before.IPs {
			address, _, err := net.ParseCIDR(found.Address)
			if err != nil {
				return refuse(given, err)
			}
			asked.Addresses = append(asked.Addresses, address.String())
		}
		if err := ask(given.Socket, asked); err != nil {
			return refuse(given, err)
		}
		os.Stdout.Write(given.PrevResult)
	case "DEL":
		// A pod must go also where nobody answers; the next reader of the queue begins with what the API server says.
		asked.Forget = true
		_ = ask(given.Socket, asked)
	}
	return 0
}

func fromArguments(text string) question {
	found := map[string]string{}
	for _, one := range strings.Split(text, ";") {
		name, value, _ := strings.Cut(one, "=")
		found[name] = value
	}
	return question{Namespace: found["K8S_POD_NAMESPACE"], Name: found["K8S_POD_NAME"], UID: found["K8S_POD_UID"]}
}

func ask(socket string, asked question) error {
	connection, err := net.DialTimeout("unix", socket, podWait)
	if err != nil {
		return err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(2 * podWait))
	if err := json.NewEncoder(connection).Encode(asked); err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(connection, questionBytes))
	if err != nil {
		return err
	}
	if said := strings.TrimSpace(string(answer)); said != "ok" {
		return errors.New(said)
	}
	return nil
}

// refuse says in CNI's form why the pod gets no network; 11 is "try again later".
func refuse(given network, why error) int {
	text, _ := json.Marshal(map[string]any{"cniVersion": given.CNIVersion, "code": 11, "msg": "netpol: " + why.Error()})
	os.Stdout.Write(text)
	return 1
}
