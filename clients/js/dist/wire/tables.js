// Code generated from proto/tidewire/v1/tidewire.proto by proto/client-codec.mjs (make gen). DO NOT EDIT.
// Kinds of fields, and marks: proto/client-codec.mjs says how a table is written.
export const NUMBER = 0;
export const BOOL = 1;
export const FIXED64 = 2;
export const DOUBLE = 3;
export const STRING = 4;
export const BYTES = 5;
export const MESSAGE = 6;
export const SINGLE = ",";
export const OPTIONAL = "?";
export const REPEATED = "*";
export const ONEOF = "|";
/** What clients send. */
export const client = "connect7|publish8|subscribe11|unsubscribe13|pong14|refresh15|flow16|ack17|nack18|extend19|reject20|;,client4,,subscriptions11*;ref,messages9*resume1,repeatAgeMs,;topic4,id4,payload5,contentType4,headers10*key4,expiresAt2,ephemeral1,;name4,value4,;sub,filter4,from4,stream4,credit?slow4,conflateMs,echo1?consumer4,settings12,window,;ackWaitMs?backoffBaseMs?backoffCapMs?backoffFactor3?backoffJitter1?maxDeliver?maxInFlight?maxWaiting?maxInFlightBytes?exclusive1?ordered1?;sub,;seq,;,token4,;sub,credit,;ref,sub,generation,term4,ranges21*,confirm1,;ref,sub,generation,term4,ranges21*,confirm1,delayMs?;ref,sub,generation,term4,ranges21*,confirm1,byMs,;ref,sub,generation,term4,ranges21*,confirm1,reason4,;partition,from,";
/** What servers send. */
export const server = "welcome7|published9|subscribed11|deliver13|caughtUp16|gap17|progress18|goAway19|ping20|error24|,refreshed21|acked22|;,,,,limits8,pingIntervalMs,pingTimeoutMs,time2,expiresAt2,;,frameBytes,,inFlight,;term4,results10*;ref,partition,offset,duplicate1,error24,term4,;sub,position4,cursors12*,,,,ackWaitMs,;partition,offset,;sub,partition,term4,after,through,records14*attempts*generation,;topic4,id4,payload5,contentType4,headers15*key4,expiresAt2,ephemeral1,publisher4,offset2,time2,;name4,value4,;sub,;sub,partition,reason4,,after,through,position4,offset,missed,;subs*partition,term4,through,;reconnectAfterMs,elsewhere4*;seq,;,expiresAt2,;ref,sub,,,refused23*error24,;,,,code4,;ref,sub,code4,message4,retryable1,retryAfterMs,request4,";
