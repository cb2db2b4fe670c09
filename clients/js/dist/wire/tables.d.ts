export declare const NUMBER = 0;
export declare const BOOL = 1;
export declare const FIXED64 = 2;
export declare const DOUBLE = 3;
export declare const STRING = 4;
export declare const BYTES = 5;
export declare const MESSAGE = 6;
export declare const SINGLE = ",";
export declare const OPTIONAL = "?";
export declare const REPEATED = "*";
export declare const ONEOF = "|";
/** What clients send. */
export declare const client = "ackWaitMs?backoffBaseMs?backoffCapMs?backoffFactor3?backoffJitter1?maxDeliver?maxInFlight?maxWaiting?maxInFlightBytes?exclusive1?ordered1?;sub,filter4,from4,stream4,credit?slow4,conflateMs,echo1?consumer4,settings6,window,;ref,client4,capabilities4*subscriptions7*;name4,value4,;topic4,id4,payload5,contentType4,headers9*key4,expiresAt2,ephemeral1,;ref,messages10*resume1,repeatAgeMs,;sub,;seq,;ref,token4,;sub,credit,;partition,from,through,;ref,sub,generation,term4,ranges16*upTo1,confirm1,;ref,sub,generation,term4,ranges16*,confirm1,delayMs?;ref,sub,generation,term4,ranges16*,confirm1,byMs,;ref,sub,generation,term4,ranges16*,confirm1,reason4,;connect8|publish11|subscribe7|unsubscribe12|pong13|refresh14|flow15|ack17|nack18|extend19|reject20|";
/** What servers send. */
export declare const server = "payloadBytes,frameBytes,publishMessages,inFlight,subscriptions,;ref,session4,server4,subject4,limits6,pingIntervalMs,pingTimeoutMs,time2,expiresAt2,;ref,sub,code4,message4,retryable1,retryAfterMs,request4,;ref,partition,offset,duplicate1,error8,term4,;term4,results9*;partition,offset,;sub,position4,cursors11*resumed1,behind,generation,created1,;name4,value4,;topic4,id4,payload5,contentType4,headers13*key4,expiresAt2,ephemeral1,publisher4,offset2,time2,;sub,partition,term4,after,through,records14*attempts*generation,;sub,;sub,partition,reason4,term4,after,through,position4,offset,missed,;subs*partition,term4,through,;reconnectAfterMs,elsewhere4*reason4,;seq,;sub,;ref,expiresAt2,;partition,from,through,code4,;ref,sub,term4,settled,refused23*error8,;welcome7|published10|subscribed12|deliver15|caughtUp16|gap17|progress18|goAway19|ping20|error8|unsubscribed21|refreshed22|acked24|";
