var a = 1;
function inner() {
    return notThere.member;
}
inner();
