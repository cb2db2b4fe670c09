package tidewire_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

// Connect to a broker, publish a message and read it again.
func Example() {
	broker := exampleBroker() // stands for `tidewire serve`

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := tidewire.Connect(ctx, tidewire.Options{
		URLs: []string{"http://127.0.0.1:7070"},
		Dial: broker.dial, // leave this out
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close(ctx) }()

	receipt, err := client.Publish(ctx, tidewire.Message{Topic: "room.42.chat", Payload: []byte("hello")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("stored at", receipt.Position)

	sub, err := client.Subscribe(ctx, "room.*.chat", tidewire.SubscribeOptions{From: "earliest"})
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Close()
	for m, err := range sub.Messages(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", m.Topic, m.Payload)
		break
	}
	// Output:
	// stored at p25-1
	// room.42.chat: hello
}

// A program that goes on where it was keeps the position, together with what it
// made of the messages, and tells of gaps.
func ExampleSubscription_Messages() {
	ctx := context.Background()
	client, err := tidewire.Connect(ctx, tidewire.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close(ctx) }()

	kept, _ := os.ReadFile("orders.position") // empty the first time: begin with what is new
	sub, err := client.Subscribe(ctx, "orders.>", tidewire.SubscribeOptions{From: string(kept)})
	if err != nil {
		log.Fatal(err)
	}
	for m, err := range sub.Messages(ctx) {
		if gap, ok := errors.AsType[*tidewire.GapError](err); ok {
			log.Print("fetch the orders anew: ", gap)
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", m.Payload)
		if err := os.WriteFile("orders.position", []byte(m.Position.String()), 0o600); err != nil {
			log.Fatal(err)
		}
	}
}

// Handle is the form with a callback.
func ExampleSubscription_Handle() {
	ctx := context.Background()
	client, err := tidewire.Connect(ctx, tidewire.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close(ctx) }()

	sub, err := client.Subscribe(ctx, "orders.>", tidewire.SubscribeOptions{
		From:  "-1h",
		OnGap: func(gap *tidewire.GapError) { log.Print(gap) },
	})
	if err != nil {
		log.Fatal(err)
	}
	err = sub.Handle(ctx, func(_ context.Context, m *tidewire.Message) error {
		fmt.Printf("%s\n", m.Payload)
		return nil
	})
	log.Print(err)
}

// Many messages in flight at once; their order is kept.
func ExampleClient_PublishAsync() {
	ctx := context.Background()
	client, err := tidewire.Connect(ctx, tidewire.Options{})
	if err != nil {
		log.Fatal(err)
	}
	var pending []*tidewire.Pending
	for i := range 1000 {
		p, err := client.PublishAsync(ctx, tidewire.Message{Topic: "numbers", Payload: fmt.Append(nil, i)})
		if err != nil {
			log.Fatal(err)
		}
		pending = append(pending, p)
	}
	for _, p := range pending {
		if _, err := p.Wait(ctx); err != nil {
			log.Print(p.ID(), ": ", err)
		}
	}
	if err := client.Close(ctx); err != nil {
		log.Fatal(err)
	}
}

// An error says by its type and code what to do about it.
func ExampleClient_Publish() {
	ctx := context.Background()
	client, err := tidewire.Connect(ctx, tidewire.Options{
		URLs:  []string{"https://a.example.com", "https://b.example.com"},
		Token: func(context.Context) (string, error) { return os.Getenv("TIDEWIRE_TOKEN"), nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close(ctx) }()

	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err = client.Publish(short, tidewire.Message{Topic: "orders.7", ID: "order-7", Payload: []byte("{}")})
	if unknown, ok := errors.AsType[*tidewire.UnknownOutcomeError](err); ok {
		log.Printf("publish %s again later, with the same id", unknown.ID)
	} else if refusal, ok := errors.AsType[*tidewire.Error](err); ok && refusal.Code == tidewire.CodeIDConflict {
		log.Print("order 7 was published before, with another content")
	} else if err != nil {
		log.Print(err)
	}
}
